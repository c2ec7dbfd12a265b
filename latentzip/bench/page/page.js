// The page's frame and its tables. All figures come from the JSON in the page.
const byId = (id) => document.getElementById(id);
function add(parent, tag, attributes = {}, text) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
function draw(parent, tag, attributes = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
const trained = (data, codec, metric) => data.codecs.some((c) => c.name === codec && c.trained.includes(metric));

function startTables(data) {
  byId("headline").textContent = data.headline;
  byId("lead").textContent = data.lead;
  table("equal", data.tables.equal);
  table("gain", data.tables.gain);
  table("means", data.tables.means);
  byId("equal-lead").textContent = data.equalLead;
  byId("gain-lead").textContent = data.gainLead;
  if (data.tables.commands.rows.length) {
    byId("time").hidden = false;
    byId("time-lead").textContent = data.timeLead;
    table("commands", data.tables.commands);
  }
  for (const [name, text] of data.method) {
    add(byId("method"), "dt", {}, name);
    add(byId("method"), "dd", {}, text);
  }
  for (const remark of data.remarks) add(byId("remarks"), "li", {}, remark);
}

// A cell is a text, or [text, what stands small below it].
function table(id, { head, rows }) {
  const top = add(add(byId(id), "thead"), "tr"), body = add(byId(id), "tbody");
  for (const title of head) add(top, "th", { scope: "col" }, title);
  let before = null;
  for (const row of rows) {
    const line = add(body, "tr", before !== null && before !== row[0] && rows.length > 12 ? { class: "first" } : {});
    row.forEach((cell, i) => {
      const [text, small] = Array.isArray(cell) ? cell : [cell, ""];
      const repeated = i === 0 && text === before;
      const box = add(line, i ? "td" : "th", i ? {} : { scope: "row" }, repeated ? "" : text);
      if (i && (text === "" || text === "no overlap")) box.className = "none";
      if (id === "equal" && i && small && text.startsWith("−")) box.className = "fewer";
      if (small) add(box, "small", {}, small);
    });
    before = Array.isArray(row[0]) ? row[0][0] : row[0];
  }
}

const page = JSON.parse(byId("data").textContent);
startTables(page);
startPlot(page);
startViewer(page);
