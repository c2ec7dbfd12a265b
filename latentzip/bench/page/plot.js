// Rate against quality, drawn as SVG.
const WIDTH = 960, HEIGHT = 520, EDGE = { left: 64, right: 20, top: 16, bottom: 48 };
const DASHES = ["", "", "8 4", "3 3", "10 3 3 3", "5 2", "2 2", "14 4"];

function startPlot(data) {
  const hidden = new Set();
  const metric = byId("metric"), picture = byId("curve-picture");
  for (const m of data.metrics) add(metric, "option", { value: m.key }, m.title);
  add(picture, "option", { value: "" }, "mean of all");
  for (const p of data.names) add(picture, "option", { value: p.id }, p.name);
  const preferred = data.metrics.find((m) => !data.codecs.some((c) => c.trained.includes(m.key)) && m.key !== "psnr");
  if (preferred) metric.value = preferred.key;
  data.codecs.forEach((codec, i) => {
    const button = add(byId("legend"), "button", { type: "button", "aria-pressed": "true" });
    const svg = draw(button, "svg", { viewBox: "0 0 34 18", "aria-hidden": "true" });
    draw(svg, "line", { x1: 0, x2: 34, y1: 9, y2: 9, ...stroke(i) });
    marker(svg, i, 17, 9);
    button.append(codec.title);
    button.addEventListener("click", () => {
      hidden.has(codec.name) ? hidden.delete(codec.name) : hidden.add(codec.name);
      button.setAttribute("aria-pressed", !hidden.has(codec.name));
      show();
    });
  });
  metric.addEventListener("change", show);
  picture.addEventListener("change", show);

  function pointsOf(codec) {
    const rows = picture.value ? (data.curves[codec.name] || {})[picture.value] || [] : data.rows.filter((r) => r.codec === codec.name);
    return rows.filter((row) => row.values[metric.value] != null).map((row) => ({ ...row, value: row.values[metric.value] }));
  }

  function show() {
    const m = data.metrics.find((one) => one.key === metric.value);
    const host = byId("plot");
    host.replaceChildren();
    const series = data.codecs.map((codec, i) => ({ codec, i, points: hidden.has(codec.name) ? [] : pointsOf(codec) }));
    const all = series.flatMap((s) => s.points);
    byId("plot-note").textContent = `${m.title}${m.unit ? ` in ${m.unit}` : ""}, ${m.higher ? "higher" : "lower"} is better: ${m.source}.`
      + (data.codecs.some((c) => c.trained.includes(m.key)) ? ` In the loss of ${data.codecs.filter((c) => c.trained.includes(m.key)).map((c) => c.title).join(" and ")}.` : "");
    if (!all.length) return void add(host, "p", { class: "note", style: "padding:1rem" }, "Nothing to show here.");
    const narrow = host.clientWidth < 560, width = narrow ? 460 : WIDTH, height = narrow ? 420 : HEIGHT;
    const x = logScale(all.map((p) => p.bpp), EDGE.left, width - EDGE.right);
    const y = linearScale(all.map((p) => p.value), height - EDGE.bottom, EDGE.top, m.higher);
    const svg = draw(host, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": `${m.title} over bits per pixel; arrow keys go from point to point` });
    for (const t of x.ticks) {
      draw(svg, "line", { class: "grid", x1: x(t), x2: x(t), y1: EDGE.top, y2: height - EDGE.bottom });
      draw(svg, "text", { x: x(t), y: height - EDGE.bottom + 20, "text-anchor": "middle" }, String(t));
    }
    for (const t of y.ticks) {
      draw(svg, "line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(t), y2: y(t) });
      draw(svg, "text", { x: EDGE.left - 10, y: y(t) + 4, "text-anchor": "end" }, t.toLocaleString("en", { maximumFractionDigits: 4 }));
    }
    draw(svg, "text", { x: width - EDGE.right, y: height - 8, "text-anchor": "end" }, "bits per pixel");
    const dots = [];
    for (const { codec, i, points } of series) {
      const sorted = [...points].sort((a, b) => a.bpp - b.bpp);
      draw(svg, "polyline", { points: sorted.map((p) => `${x(p.bpp)},${y(p.value)}`).join(" "), fill: "none", ...stroke(i) });
      for (const p of sorted) {
        const dot = marker(svg, i, x(p.bpp), y(p.value));
        dots.push({ dot, p, codec, cx: x(p.bpp), cy: y(p.value) });
      }
    }
    const tip = add(host, "div", { class: "tip", hidden: "", "aria-live": "polite" });
    const tell = ({ p, codec, cx, cy }) => {
      tip.textContent = `${codec.title} ${p.label}: ${p.bpp.toFixed(3)} bpp, ${p.value.toFixed(m.digits)}${m.unit ? ` ${m.unit}` : ""}`;
      tip.hidden = false;
      const room = tip.offsetWidth / 2 + 4, left = cx / width * host.clientWidth;
      tip.style.left = `${Math.max(room, Math.min(host.clientWidth - room, left))}px`;
      tip.style.top = `${Math.max(46, cy / height * svg.clientHeight)}px`;
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), k = width / box.width;
      const px = (event.clientX - box.left) * k, py = (event.clientY - box.top) * k;
      const near = nearest(dots, px, py);
      if (near && Math.hypot(near.cx - px, near.cy - py) < 28 * k) tell(near);
      else tip.hidden = true;
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    let at = -1;
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      at = (at + step + dots.length) % dots.length;
      tell(dots[at]);
    });
    svg.addEventListener("blur", () => { tip.hidden = true; });
  }
  let before = byId("plot").clientWidth < 560;
  addEventListener("resize", () => {
    const narrow = byId("plot").clientWidth < 560;
    if (narrow !== before) { before = narrow; show(); }
  });
  show();
}

const nearest = (dots, px, py) => dots.reduce((best, d) => !best || Math.hypot(d.cx - px, d.cy - py) < Math.hypot(best.cx - px, best.cy - py) ? d : best, null);
const colour = (i) => `var(--c${i % 8})`;
const stroke = (i) => ({ style: `stroke: ${colour(i)}`, "stroke-width": i < 2 ? 2.5 : 1.8, "stroke-dasharray": DASHES[i % 8] });

function marker(svg, i, x, y) {
  const style = `fill: ${colour(i)}`;
  const shapes = ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "M-5-5H5V5H-5Z", "M0-6L6 5H-6Z", "M0-6L6 0L0 6L-6 0Z", "M0 6L6-5H-6Z", "M-4-4H4V4H-4Z", "M-6-2H-2V-6H2V-2H6V2H2V6H-2V2H-6Z", "M-2-6H2V6H-2Z"];
  return draw(svg, "path", { d: shapes[i % 8], transform: `translate(${x} ${y})`, style });
}

function logScale(values, from, to) {
  const low = Math.min(...values) * .93, high = Math.max(...values) * 1.07;
  const scale = (v) => from + (Math.log(v / low) / Math.log(high / low)) * (to - from);
  scale.ticks = [.01, .02, .03, .05, .1, .2, .3, .5, 1, 2, 3, 5, 10].filter((t) => t >= low && t <= high);
  return scale;
}

// Better is up, whichever way the figure points.
function linearScale(values, bottom, top, higher) {
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) { low -= 1; high += 1; }
  const margin = (high - low) * .05, span = high - low + 2 * margin;
  const share = (v) => (v - low + margin) / span;
  const scale = (v) => bottom + (higher ? share(v) : 1 - share(v)) * (top - bottom);
  const rough = span / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
  scale.ticks = [];
  for (let t = Math.ceil((low - margin) / step) * step; t <= high + margin; t += step) scale.ticks.push(+t.toPrecision(8));
  return scale;
}
