// The tab Slide: the controls, the sum at one place, the Jacobians, and what a shift does.
import {attempt, debounce, element, get, onState, showSame} from "./core.js";
import {correlate, jacobianX, jacobianY, measureShift, parseSamples, partner, places, products, sampleTexts} from "./correlation.js";
import {drawMoved, drawStage, shown} from "./stage.js";

const id = name => document.getElementById(`slide-${name}`);
const EXAMPLES = {
  "y is x, later": ["1, 2, 0, -1, 0, 0.5", "0, 0.5, 1, 2, 0, -1"],
  "an impulse copies y": ["1, 0, 0, 0, 0, 0", "0.5, 1, 2, -1, 0, 1.5"],
  "a moving mean": ["1/3, 1/3, 1/3, 0, 0, 0, 0, 0", "0, 3, 0, 0, 2, 2, 2, 0"],
  "an edge detector": ["-1, 1, 0, 0, 0, 0, 0, 0", "0, 0, 0, 2, 2, 2, 0, 0"],
};
const ORDINALS = {2: "2nd", 3: "3rd", 4: "4th"};
const chosen = {x: 0, y: 0}; // the sample of each signal that the keyboard is at
let signals = null, lit = null, timer = 0;

export async function start(panel) {
  for (const name of Object.keys(EXAMPLES)) id("example").append(element("option", {value: name}, name));
  id("form").addEventListener("submit", event => event.preventDefault());
  id("example").addEventListener("change", () => { if (id("example").value) setSignals(...EXAMPLES[id("example").value]); });
  id("n").addEventListener("change", () => setSignals(...["x", "y"].map(name => resized(sampleTexts(id(name).value), Number(id("n").value)).join(", "))));
  id("play").addEventListener("click", () => timer ? pause() : play());
  id("step").addEventListener("click", () => { pause(); step(1); });
  id("back").addEventListener("click", () => { pause(); step(-1); });
  onState("slide.", () => refresh(panel));
  onState("projector", () => refresh(panel));
  panel.addEventListener("shown", () => refresh(panel));
  document.addEventListener("keydown", event => { if (event.key === "Escape") pause(); });
  let width = 0;
  new ResizeObserver(() => { if (id("stage").clientWidth !== width) { width = id("stage").clientWidth; refresh(panel); } }).observe(id("stage"));
}

const resized = (texts, n) => Array.from({length: n}, (_, index) => texts[index] ?? "0");

function setSignals(x, y) {
  setText("x", x);
  setText("y", y);
}

function setText(name, text) {
  id(name).value = text;
  id(name).dispatchEvent(new Event("input", {bubbles: true}));
}

// ---------------------------------------------------------------- the place

const stride = () => Number(id("stride").value);

function setPlace(k) {
  id("k").value = k;
  id("k").dispatchEvent(new Event("input", {bubbles: true}));
}

function step(by) {
  const ks = places(signals.x.length, signals.stride), at = ks.indexOf(signals.k);
  setPlace(ks[(at + by + ks.length) % ks.length]);
}

function play() {
  if (!signals) return;
  if (signals.k === places(signals.x.length, signals.stride).at(-1)) setPlace(0);
  id("play").textContent = "Pause";
  timer = setInterval(() => {
    if (id("stage").closest("[role=tabpanel]").hidden || signals.k + signals.stride >= signals.x.length) pause();
    else step(1);
  }, 1000);
}

function pause() {
  clearInterval(timer);
  timer = 0;
  id("play").textContent = "Play";
}

// ---------------------------------------------------------------- what is seen

function refresh(panel) {
  const [x, y] = [parseSamples(id("x").value), parseSamples(id("y").value)];
  askLibrary(panel); // it says in one line what is wrong with a signal
  if (!x || !y || x.length !== y.length || panel.hidden) return;
  const n = x.length;
  id("n").value = n;
  id("k").max = Math.floor((n - 1) / stride()) * stride();
  id("k").step = stride();
  for (const option of id("shift").options) option.hidden = option.disabled = Number(option.value) >= n;
  signals = {x, y, n, padding: id("padding").value, stride: stride(), k: Number(id("k").value)};
  if (!(chosen.x < n)) chosen.x = 0;
  if (!(chosen.y < n)) chosen.y = 0;
  drawStage(id("stage"), signals, {
    chosen: name => chosen[name], look: (name, index) => light({holds: name, index}), place: setPlace,
    change: (name, index, value) => setText(name, sampleTexts(id(name).value).map((text, at) => at === index ? String(value) : text).join(", ")),
    choose: (name, index) => {
      chosen[name] = index;
      id("stage").querySelectorAll(`[data-key^="${name}"]`).forEach(part => { part.tabIndex = part.dataset.key === `${name}${index}` ? 0 : -1; });
      id("stage").querySelector(`[data-key="${name}${index}"]`).focus();
    },
  });
  showSum();
  id("jacobian-x").parentElement.parentElement.style.setProperty("--n", n);
  showJacobian("x", jacobianX(n, signals), y);
  showJacobian("y", jacobianY(n, signals), x);
  showShift();
  light(lit);
}

function showSum() {
  const {x, y, k, n, padding} = signals, every = signals.stride > 1 ? `, for every ${ORDINALS[signals.stride]} k` : "";
  id("formula").textContent = `z[k] = Σ x[i] ${padding === "circular" ? `y[(i + k) mod ${n}]` : "y[i + k]"}${every}`;
  const terms = products(x, y, k, padding).flatMap((value, i) => value === 0 ? [] : [`${shown(x[i])}·${shown(y[partner(i, k, n, padding)])}`]);
  const total = products(x, y, k, padding).reduce((a, b) => a + b, 0);
  const words = terms.map(term => term.replace(/·(−.*)/, "·($1)")).join(" + ").replaceAll("+ −", "− ");
  id("sum").textContent = `k = ${k}: z[${k}] = ${words || "0"} = ${shown(total)}`;
}

function showJacobian(by, rows, held) {
  const place = id(`jacobian-${by}`), letter = by === "x" ? "i" : "j", holds = by === "x" ? "y" : "x";
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.at : null;
  const ks = places(signals.n, signals.stride), most = Math.max(...held.map(Math.abs)) || 1;
  const cells = rows.map((row, cell) => element("tr", {class: ks[cell] === signals.k ? "now" : null},
    element("th", {scope: "row"}, `${ks[cell]}`),
    ...row.map((index, column) => {
      const made = element("td", {class: index === null ? "is-zero" : `of-${holds}`, role: "gridcell", tabindex: cell + column ? -1 : 0, "data-at": `${cell} ${column}`, "data-holds": index ?? ""}, index === null ? "0" : shown(held[index]));
      made.style.setProperty("--share", index === null ? "0%" : `${Math.round(Math.abs(held[index]) / most * 40)}%`);
      const look = () => light({by, k: ks[cell], column, holds, index});
      made.addEventListener("pointermove", look);
      made.addEventListener("focus", look);
      made.addEventListener("keydown", event => moveCell(event, place, cell, column));
      return made;
    })));
  const head = element("tr", {}, element("th", {scope: "col"}, `k \\ ${letter}`), ...held.map((_, column) => element("th", {scope: "col"}, `${column}`)));
  place.replaceChildren(element("table", {role: "grid", "aria-label": `The derivatives of z by ${by}`}, element("thead", {}, head), element("tbody", {}, ...cells)));
  if (focused) place.querySelector(`[data-at="${focused}"]`)?.focus({preventScroll: true});
}

function moveCell(event, place, cell, column) {
  const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  if (!move) return;
  event.preventDefault();
  const next = place.querySelector(`[data-at="${cell + move[0]} ${column + move[1]}"]`);
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// Light up every cell that holds a sample, and the sample; say what the derivative is.
function light(what) {
  lit = what;
  if (!what || what.index >= signals.n || what.k >= signals.n || what.column >= signals.n) {
    id("lit").textContent = "Point at a cell, or at a sample: every cell that holds the same sample lights up.";
    return;
  }
  const {holds, index} = what, inJacobian = id(holds === "y" ? "jacobian-x" : "jacobian-y");
  for (const part of document.querySelectorAll("#panel-slide .lit")) part.classList.remove("lit");
  if (index !== null) {
    for (const cell of inJacobian.querySelectorAll(`[data-holds="${index}"]`)) cell.classList.add("lit");
    id("stage").querySelector(`[data-key="${holds}${index}"]`)?.classList.add("lit");
  }
  const value = index === null ? 0 : signals[holds][index];
  const circular = signals.padding === "circular" ? "circulant" : "Toeplitz";
  const lines = holds === "y" ? "anti-diagonals: row k is y, shifted to the left (Hankel)" : `diagonals: row k is x, shifted to the right (${circular})`;
  const sample = index === null ? "0, a zero of the padding" : `${holds}[${index}] = ${shown(value)}`;
  const derivative = what.by ? `∂z[${what.k}] / ∂${what.by}[${what.column}] = ` : "";
  id("lit").textContent = `${derivative}${sample}${index === null ? "." : `, which stands on ${lines}.`}`;
}

function showShift() {
  const {x, y, n} = signals, shift = Math.min(Number(id("shift").value), n - 1), measured = measureShift(x, y, shift, signals);
  const cells = `${measured.outputShift} ${measured.outputShift === 1 ? "cell" : "cells"}`;
  const percent = measured.relativeDifference == null ? "" : `, ${(100 * measured.relativeDifference).toFixed(0)} % of how much z varies`;
  const why = signals.stride > 1 && shift % signals.stride ? `the stride keeps every ${ORDINALS[signals.stride]} value, and a shift by ${shift} is a fraction of a cell`
    : signals.padding === "zeros" ? "zeros come in where the circle would bring y's own beginning" : `${n} samples are no multiple of the stride`;
  id("verdict").className = `slide-verdict ${measured.onlyShifts ? "yes" : "no"}`;
  id("verdict").textContent = measured.onlyShifts
    ? `Yes: z only shifts, by ${cells} to the left. Largest difference ${measured.difference ? measured.difference.toExponential(0) + ", rounding" : "0"}.`
    : `No: the largest difference is ${shown(measured.difference)}${percent}, because ${why}.`;
  drawMoved(id("moved"), {...measured, stride: signals.stride, n});
}

const askLibrary = debounce(async panel => {
  if (panel.hidden) return;
  const shift = Math.min(Number(id("shift").value), (signals?.n ?? 12) - 1);
  const found = await attempt(panel, () => get("/api/slide", {x: id("x").value, y: id("y").value, padding: id("padding").value, stride: id("stride").value, shift}));
  showSame(id("same"), found);
  id("library").textContent = "";
  if (!found || !signals || found.z.length !== places(signals.n, signals.stride).length) return;
  const difference = Math.max(...correlate(signals.x, signals.y, signals).map((value, cell) => Math.abs(value - found.z[cell])));
  id("library").textContent = `convolab's own function, by FFT, gives the same z: the largest difference is ${difference ? difference.toExponential(0) : "0"}.`;
}, 250);
