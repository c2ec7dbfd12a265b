// The slider: an original and what two codecs made of it, in nearly equal bytes.
function startViewer(data) {
  const shown = data.pictures;
  if (!shown.length) return;
  byId("look").hidden = false;
  const ORIGINAL = "original", ZOOMS = [["fit", "Fit"], [1, "1×"], [2, "2×"], [4, "4×"]];
  const names = [ORIGINAL, ...data.codecs.map((codec) => codec.name)];
  const state = { picture: 0, size: Math.min(1, data.sizes.length - 1), zoom: "fit", split: 50,
    left: data.leading, right: data.anchor === data.leading ? ORIGINAL : data.anchor };
  const pan = byId("pan"), sheet = byId("sheet"), divider = byId("divider"), viewer = byId("viewer");
  const images = { left: byId("image-left"), right: byId("image-right") };

  shown.forEach((picture, i) => {
    const button = add(byId("pictures"), "button", { type: "button", "aria-label": picture.name, title: picture.name });
    add(button, "img", { src: picture.thumbnail, alt: "" });
    button.addEventListener("click", () => set({ picture: i }));
  });
  data.sizes.forEach((label, i) => {
    add(byId("sizes"), "button", { type: "button" }, label).addEventListener("click", () => set({ size: i }));
  });
  ZOOMS.forEach(([zoom, label]) => {
    add(byId("zooms"), "button", { type: "button" }, label).addEventListener("click", () => set({ zoom }));
  });
  for (const side of ["left", "right"]) {
    for (const name of names) add(byId(side), "option", { value: name }, titleOf(name));
    byId(side).addEventListener("change", (event) => set({ [side]: event.target.value }));
  }

  function titleOf(name) {
    return name === ORIGINAL ? "Original" : data.codecs.find((codec) => codec.name === name).title;
  }

  function fileOf(side) {
    const picture = shown[state.picture];
    return state[side] === ORIGINAL ? null : picture.files[state.size][state[side]];
  }

  function set(change) {
    Object.assign(state, change);
    const picture = shown[state.picture];
    mark("pictures", state.picture);
    mark("sizes", state.size);
    mark("zooms", ZOOMS.findIndex(([zoom]) => zoom === state.zoom));
    for (const side of ["left", "right"]) {
      byId(side).value = state[side];
      const file = fileOf(side);
      const source = state[side] === ORIGINAL ? picture.original : file && file.image;
      images[side].style.visibility = source ? "visible" : "hidden";
      if (source && images[side].src !== source) images[side].src = source;
      images[side].alt = `${picture.name}, ${titleOf(state[side])}`;
      caption(side, file);
    }
    byId("look-note").textContent = `${picture.name}, ${picture.crop ? "the central " : ""}${picture.width} × ${picture.height} pixels. ${data.sizeNote}`;
    layOut();
  }

  function caption(side, file) {
    const list = byId(`caption-${side}`);
    list.replaceChildren();
    add(list, "dt", { class: "name" }, titleOf(state[side]));
    if (state[side] === ORIGINAL) return void add(list, "dd", { class: "size" }, shown[state.picture].name);
    if (!file) return void add(list, "dd", { class: "size" }, "could not code this picture");
    const size = add(list, "dd", { class: "size" });
    [`${file.bytes.toLocaleString("en")} bytes`, `${file.bpp.toFixed(3)} bpp`, file.label].forEach((part, i) => {
      if (i) size.append(", ");
      add(size, "span", {}, part);
    });
    for (const metric of data.metrics) {
      if (file.values[metric.key] == null) continue;
      add(list, "dt", {}, metric.title + (metric.unit ? `, ${metric.unit}` : "") + (trained(data, state[side], metric.key) ? " †" : ""));
      add(list, "dd", {}, file.values[metric.key].toFixed(metric.digits));
    }
  }

  function mark(group, chosen) {
    [...byId(group).children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
  }

  function scale() {
    const picture = shown[state.picture];
    if (state.zoom !== "fit") return state.zoom / (window.devicePixelRatio || 1);
    return Math.min(viewer.clientWidth / picture.width, Math.min(innerHeight * .8, 736) / picture.height, 1.5);
  }

  function layOut() {
    const picture = shown[state.picture], s = scale();
    const middle = pan.scrollWidth > pan.clientWidth ? (pan.scrollLeft + pan.clientWidth / 2) / pan.scrollWidth : .5;
    const centre = pan.scrollHeight > pan.clientHeight ? (pan.scrollTop + pan.clientHeight / 2) / pan.scrollHeight : .5;
    sheet.style.width = `${picture.width * s}px`;
    sheet.style.height = `${picture.height * s}px`;
    sheet.classList.toggle("coarse", s > 1.6);
    const large = pan.scrollWidth > pan.clientWidth + 1 || pan.scrollHeight > pan.clientHeight + 1;
    pan.classList.toggle("large", large);
    if (large) {
      pan.scrollLeft = middle * pan.scrollWidth - pan.clientWidth / 2;
      pan.scrollTop = centre * pan.scrollHeight - pan.clientHeight / 2;
    }
    cut();
  }

  // The divider stands still in the window while the pictures move under it.
  function cut() {
    const visible = Math.min(sheet.offsetWidth, pan.clientWidth), start = (pan.clientWidth - visible) / 2;
    const x = start + visible * state.split / 100;
    divider.style.left = `${x}px`;
    divider.setAttribute("aria-valuenow", Math.round(state.split));
    divider.setAttribute("aria-valuetext", `${Math.round(state.split)} % ${titleOf(state.left)}, the rest ${titleOf(state.right)}`);
    const onSheet = x - start + pan.scrollLeft;
    images.right.style.clipPath = `inset(0 0 0 ${Math.max(0, onSheet)}px)`;
  }

  function splitAt(clientX) {
    const visible = Math.min(sheet.offsetWidth, pan.clientWidth), box = pan.getBoundingClientRect();
    state.split = Math.max(0, Math.min(100, 100 * (clientX - box.left - (pan.clientWidth - visible) / 2) / visible));
    cut();
  }

  function drag(target, move) {
    target.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const begin = { x: event.clientX, y: event.clientY, left: pan.scrollLeft, top: pan.scrollTop };
      target.setPointerCapture(event.pointerId);
      move(event, begin);
      const onMove = (e) => move(e, begin);
      target.addEventListener("pointermove", onMove);
      for (const end of ["pointerup", "pointercancel"]) {
        target.addEventListener(end, () => target.removeEventListener("pointermove", onMove), { once: true });
      }
    });
  }
  drag(divider, (event) => splitAt(event.clientX));
  drag(pan, (event, begin) => {
    if (!pan.classList.contains("large")) return splitAt(event.clientX);
    pan.scrollLeft = begin.left - (event.clientX - begin.x);
    pan.scrollTop = begin.top - (event.clientY - begin.y);
  });
  pan.addEventListener("scroll", cut);
  addEventListener("resize", layOut);

  const zoomBy = (step) => {
    const at = ZOOMS.findIndex(([zoom]) => zoom === state.zoom) + step;
    if (ZOOMS[at]) set({ zoom: ZOOMS[at][0] });
  };
  const moveTo = (split) => { state.split = Math.max(0, Math.min(100, split)); cut(); };
  const keys = {
    ",": () => set({ picture: (state.picture + shown.length - 1) % shown.length }),
    ".": () => set({ picture: (state.picture + 1) % shown.length }),
    "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1),
    x: () => set({ left: state.right, right: state.left }),
    ArrowLeft: (event) => moveTo(state.split - (event.shiftKey ? 10 : 2)),
    ArrowRight: (event) => moveTo(state.split + (event.shiftKey ? 10 : 2)),
    Home: () => moveTo(0), End: () => moveTo(100),
  };
  data.sizes.forEach((_, i) => { keys[i + 1] = () => set({ size: i }); });
  addEventListener("keydown", (event) => {
    const onSlider = document.activeElement === divider || document.activeElement === pan;
    const free = document.activeElement === document.body || byId("look").contains(document.activeElement);
    const needsSlider = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT" || !keys[event.key]) return;
    if (!free || (needsSlider && !onSlider)) return;
    event.preventDefault();
    keys[event.key](event);
  });
  set({});
}
