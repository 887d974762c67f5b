// The drawing of the tab Slide: x, y below it at its place, their products, and z as it grows. Samples are dragged.
import {svg} from "./chart.js";
import {partner, places, products} from "./correlation.js";

const HIGHEST = 2; // of a sample that is dragged; typed ones may be larger
const STEP = 0.1, LARGE_STEP = 1;

export function shown(value) {
  const text = Number.isInteger(value) ? String(value) : Math.abs(value) >= 100 ? value.toPrecision(3) : String(+value.toFixed(2));
  return text.replace("-", "−");
}

const texted = (attributes, text) => { const made = svg("text", attributes); made.textContent = text; return made; };
const largest = (values, least) => Math.max(least, ...values.map(Math.abs));

// The columns and rows of a drawing of n columns that is as wide as its place.
function layout(place, n, numRows) {
  const font = 0.85 * parseFloat(getComputedStyle(document.documentElement).fontSize);
  const width = Math.max(280, place.clientWidth || 600), left = 2.2 * font, column = Math.min((width - left - 4) / n, 9 * font);
  const small = Math.min(font, column / 2.7), rowHeight = 8.4 * font;
  const drawing = svg("svg", {class: "stage", width, height: numRows * rowHeight, viewBox: `0 0 ${width} ${numRows * rowHeight}`, role: "group", "font-size": font});
  const x = index => left + (index + 0.5) * column;
  const middle = row => (row + 0.5) * rowHeight + 0.3 * font, reach = 0.5 * rowHeight - 1.9 * font;
  return {font, small, width, left, column, rowHeight, drawing, x, middle, reach};
}

function rowFrame(area, row, name, kind, n) {
  area.drawing.append(
    texted({x: 2, y: area.middle(row) + area.font / 3, class: "row-name"}, name),
    svg("line", {x1: area.left, x2: area.left + n * area.column, y1: area.middle(row), y2: area.middle(row), class: "axis-line"}));
  const group = svg("g", {class: kind});
  area.drawing.append(group);
  return group;
}

// A stem with its value above or below it; drawn around x = 0.
function stem(area, row, value, scale, part = {}) {
  const base = area.middle(row), tip = base - value / scale * area.reach, radius = Math.min(0.45 * area.font, 0.25 * area.column);
  const line = svg("line", {x1: 0, x2: 0, y1: base, y2: tip, class: "stem"});
  const dot = svg("circle", {cx: 0, cy: tip, r: radius, class: part.dot ?? "dot"});
  const off = radius + 0.25 * area.small;
  const label = texted({x: 0, y: value < 0 ? tip + off + 0.7 * area.small : tip - off, "text-anchor": "middle", "font-size": area.small}, part.text ?? shown(value));
  return [line, dot, label];
}

const hit = (area, row) => svg("rect", {x: -area.column / 2 + 1, width: area.column - 2, y: row * area.rowHeight + 2, height: area.rowHeight - 4, rx: 5, class: "hit"});

// Draw all. signals: {x, y, k, padding, stride}; act: {change(name, index, value), look(name, index), place(k)}.
export function drawStage(place, {x, y, k, padding, stride}, act) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const before = new Map([...place.querySelectorAll("[data-key]")].map(part => [part.dataset.key, part.getAttribute("data-column")]));
  const n = x.length, area = layout(place, n, 4), scale = largest([...x, ...y], HIGHEST);
  area.drawing.setAttribute("aria-label", `x, y at place ${k}, their products, and z`);
  const rows = [rowFrame(area, 0, "x", "of-x", n), rowFrame(area, 1, "y", "of-y", n), rowFrame(area, 2, "x·y", "of-product", n), rowFrame(area, 3, "z", "of-z", n)];

  const sample = (row, name, index, column, value) => {
    const isOut = column < 0;
    const part = svg("g", {
      class: `sample column${isOut ? " is-out" : ""}`, role: "slider", tabindex: index === (act.chosen(name) ?? 0) ? 0 : -1,
      "aria-label": `${name}[${index}]`, "aria-valuemin": -scale, "aria-valuemax": scale, "aria-valuenow": value, "aria-valuetext": shown(value),
      "aria-orientation": "vertical", "data-key": `${name}${index}`, "data-column": column,
    }, hit(area, row), ...stem(area, row, value, scale));
    part.style.transform = `translateX(${area.x(column)}px)`;
    listen(part, area, row, scale, name, index, value, act, n);
    rows[row].append(part);
    const old = before.get(`${name}${index}`); // it slides from where it was; what comes around only appears
    if (old != null && Number(old) !== column && Math.abs(old - column) <= Math.max(stride, 1) && part.animate && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      part.animate([{transform: `translateX(${area.x(Number(old))}px)`}, {transform: `translateX(${area.x(column)}px)`}], {duration: 300, easing: "ease"});
    }
  };
  x.forEach((value, i) => sample(0, "x", i, i, value));
  y.forEach((value, j) => sample(1, "y", j, padding === "circular" ? (j - k + n) % n : j - k, value));
  for (let i = 0; i < n; i++) {
    if (partner(i, k, n, padding) !== null) continue;
    const zero = svg("g", {}, ...stem(area, 1, 0, scale, {dot: "zero-dot", text: "0"}));
    zero.style.transform = `translateX(${area.x(i)}px)`;
    rows[1].append(zero);
  }

  const productScale = largest(x, 0) * largest(y, 0) || 1;
  products(x, y, k, padding).forEach((value, i) => {
    const base = area.middle(2), tip = base - value / productScale * area.reach, width = Math.min(0.6 * area.column, 2.4 * area.font);
    rows[2].append(
      svg("rect", {x: area.x(i) - width / 2, width, y: Math.min(base, tip), height: Math.max(1, Math.abs(tip - base)), class: "product"}),
      texted({x: area.x(i), y: value < 0 ? tip + area.small : tip - 0.3 * area.small, "text-anchor": "middle", "font-size": area.small}, shown(value)));
  });

  const ks = places(n, stride), z = ks.map(at => products(x, y, at, padding).reduce((a, b) => a + b, 0)), zScale = largest(z, 0) || 1;
  ks.forEach((at, cell) => {
    const part = svg("g", {class: at < k ? "place" : at === k ? "place now" : "place future", "aria-hidden": "true"}, hit(area, 3),
      ...(at <= k ? stem(area, 3, z[cell], zScale) : stem(area, 3, 0, zScale, {dot: "zero-dot", text: `${at}`})));
    part.style.transform = `translateX(${area.x(at)}px)`;
    part.addEventListener("click", () => act.place(at));
    rows[3].append(part);
  });
  place.replaceChildren(area.drawing);
  if (focused) place.querySelector(`[data-key="${focused}"]`)?.focus({preventScroll: true});
}

function listen(part, area, row, scale, name, index, value, act, n) {
  const round = number => Math.max(-scale, Math.min(scale, Math.round(number / STEP) * STEP));
  const set = number => act.change(name, index, +round(number).toFixed(1));
  part.addEventListener("pointermove", () => act.look(name, index));
  part.addEventListener("focus", () => act.look(name, index));
  part.addEventListener("pointerdown", event => {
    event.preventDefault();
    act.choose(name, index);
    const top = part.ownerSVGElement.getBoundingClientRect().top;
    const drag = at => set((area.middle(row) - (at.clientY - top)) / area.reach * scale);
    const stop = () => { removeEventListener("pointermove", drag); removeEventListener("pointerup", stop); removeEventListener("pointercancel", stop); };
    addEventListener("pointermove", drag); // the drawing is made anew while a sample is dragged, so the window listens
    addEventListener("pointerup", stop);
    addEventListener("pointercancel", stop);
    drag(event);
  });
  part.addEventListener("keydown", event => {
    const changes = {ArrowUp: STEP, ArrowDown: -STEP, PageUp: LARGE_STEP, PageDown: -LARGE_STEP}, moves = {ArrowLeft: -1, ArrowRight: 1};
    if (event.key in changes) set(value + changes[event.key]);
    else if (event.key in moves) act.choose(name, (index + moves[event.key] + n) % n);
    else if (event.key === "Home" || event.key === "End") set(event.key === "Home" ? -scale : scale);
    else return;
    event.preventDefault();
  });
}

// z of the shifted x as dots, z shifted as rings, and a line where they differ.
export function drawMoved(place, {moved, expected, stride, n}) {
  const area = layout(place, n, 1), scale = largest([...moved, ...expected], 0) || 1, row = rowFrame(area, 0, "z", "of-z", n);
  area.drawing.setAttribute("role", "img");
  area.drawing.setAttribute("aria-label", `z of the shifted x: ${moved.map(shown).join(", ")}. z, shifted: ${expected.map(shown).join(", ")}.`);
  places(n, stride).forEach((at, cell) => {
    const y = value => area.middle(0) - value / scale * area.reach, radius = Math.min(0.7 * area.font, 0.36 * area.column);
    const outer = Math.abs(expected[cell]) > Math.abs(moved[cell]) && expected[cell] * moved[cell] > 0 ? expected[cell] : moved[cell];
    const off = radius + 0.25 * area.small, label = y(outer) + (moved[cell] < 0 ? off + 0.7 * area.small : -off);
    const part = svg("g", {}, ...stem(area, 0, moved[cell], scale, {text: ""}),
      svg("line", {x1: 0, x2: 0, y1: y(moved[cell]), y2: y(expected[cell]), class: "gap"}),
      svg("circle", {cx: 0, cy: y(expected[cell]), r: radius, class: "ring"}),
      texted({x: 0, y: label, "text-anchor": "middle", "font-size": area.small}, shown(moved[cell])));
    part.style.transform = `translateX(${area.x(at)}px)`;
    row.append(part);
  });
  place.replaceChildren(area.drawing);
}
