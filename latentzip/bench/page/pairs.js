// Asks which side of each pair is better, and counts in the end. The key is decoded only then.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const Z = 1.959964; // of a 95 % interval
const SIDES = ["left", "original", "right"];
const STORED = "latentzip-pairs-" + data.key.slice(-64);

let answers = []; // -1 for left, 1 for right, 0 for no preference
let shown = false;
try { answers = JSON.parse(sessionStorage.getItem(STORED)) || []; } catch { /* a reload then begins anew */ }

function remember() {
  try { sessionStorage.setItem(STORED, JSON.stringify(answers)); } catch { /* as above */ }
}

function draw() {
  const asking = answers.length < data.pairs.length;
  byId("ask").hidden = !asking;
  byId("done").hidden = asking || shown;
  byId("end").hidden = !shown;
  if (!asking) return;
  const sides = data.pairs[answers.length];
  SIDES.forEach((id, i) => {
    byId(id).src = sides[i];
    byId(id).onload = () => { byId(id).width = byId(id).naturalWidth * data.zoom; };
  });
  byId("progress").textContent = `Pair ${answers.length + 1} of ${data.pairs.length}.`;
}

function choose(answer) {
  if (answers.length === data.pairs.length) return;
  answers.push(answer);
  remember();
  draw();
}

function goBack() {
  if (shown || !answers.length) return;
  answers.pop();
  remember();
  draw();
}

function wilson(wins, count) {
  if (!count) return null;
  const p = wins / count, z2 = Z * Z / count;
  const middle = (p + z2 / 2) / (1 + z2), half = Z * Math.sqrt(p * (1 - p) / count + z2 / (4 * count)) / (1 + z2);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function results() {
  const key = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(data.key), (c) => c.charCodeAt(0))));
  key.pairs.forEach((pair, i) => { pair.chosen = [pair.left, null, pair.right][answers[i] + 1]; });
  const names = key.codecs.map((codec) => codec.name);
  const count = (rate, pairs) => {
    const wins = names.map((name) => pairs.filter((pair) => pair.chosen === name).length);
    const decided = wins[0] + wins[1];
    return { rate, pairs: pairs.length, wins, undecided: pairs.length - decided, interval: wilson(wins[0], decided) };
  };
  const rates = [...new Set(key.pairs.map((pair) => pair.rate))].sort((a, b) => a - b);
  const rows = rates.map((rate) => count(rate, key.pairs.filter((pair) => pair.rate === rate)));
  return { ...key, results: rates.length > 1 ? [...rows, count(null, key.pairs)] : rows };
}

function table(id, head, rows) {
  for (const [i, cells] of [head, ...rows].entries()) {
    const line = byId(id).insertRow();
    for (const cell of cells) {
      const box = document.createElement(i ? "td" : "th");
      box.textContent = cell;
      line.append(box);
    }
  }
}

const times = (count) => `${count} ${count === 1 ? "time" : "times"}`;
const percent = (x) => `${Math.round(100 * x)} %`;

function show() {
  if (answers.length < data.pairs.length || shown) return;
  shown = true;
  const found = results(), [tested, anchor] = found.codecs, all = found.results.at(-1);
  byId("headline").textContent = `${tested.title} was preferred ${times(all.wins[0])}, ${anchor.title} ${times(all.wins[1])}`;
  byId("lead").textContent = `${all.pairs} pairs, ${all.undecided} without preference.`;
  byId("method").textContent = `${tested.title}'s files had ${found.share === 1 ? "as many" : percent(found.share) + " of the"}`
    + ` bytes ${found.share === 1 ? "as" : "of"} ${anchor.title}'s, whose rate is given in bits per pixel. The interval is`
    + ` Wilson's, of 95 %, for ${tested.title}'s share of the preferences.`;
  table("result", ["rate", "pairs", tested.title, anchor.title, "no preference", `${tested.title}'s share`, "interval"],
    found.results.map((row) => [row.rate ?? "all", row.pairs, ...row.wins, row.undecided,
      row.interval ? percent(row.wins[0] / (row.wins[0] + row.wins[1])) : "",
      row.interval ? row.interval.map(percent).join(" to ") : ""]));
  const titles = Object.fromEntries(found.codecs.map((codec) => [codec.name, codec.title]));
  table("list", ["pair", "picture", "x, y", "rate", "left", "right", `${tested.title} bytes`, `${anchor.title} bytes`, "chosen"],
    found.pairs.map((pair, i) => [i + 1, pair.picture, `${pair.x}, ${pair.y}`, pair.rate, titles[pair.left],
      titles[pair.right], ...pair.bytes, pair.chosen ? titles[pair.chosen] : "no preference"]));
  draw();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(results(), null, 2)], { type: "application/json" }));
  link.download = "pairs.json";
  link.click();
}

function again() {
  answers = [];
  remember();
  location.reload();
}

const keys = {
  ArrowLeft: () => choose(-1), ArrowRight: () => choose(1), ArrowDown: () => choose(0), Backspace: goBack, Enter: show,
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || shown || !keys[event.key]) return;
  if (event.key === "Enter" && answers.length < data.pairs.length) return;
  event.preventDefault();
  keys[event.key]();
});
byId("choose-left").onclick = () => choose(-1);
byId("choose-none").onclick = () => choose(0);
byId("choose-right").onclick = () => choose(1);
byId("back").onclick = goBack;
byId("show").onclick = show;
byId("save").onclick = save;
byId("copy").onclick = () => navigator.clipboard.writeText(JSON.stringify(results(), null, 2));
byId("again").onclick = again;
byId("lead").textContent = `The original is in the middle. Choose the side that you would rather have in its place. Crops of`
  + ` ${data.side} pixels a side, at ${data.zoom} times their size; the sides are drawn by lot anew for every pair.`;
draw();
