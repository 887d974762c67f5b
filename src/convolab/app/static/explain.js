// The tab Explain: maps side by side over the image, their checks, and where the cell at a pixel looks.
import {attempt, Cancelled, debounce, element, get, getState, onState, post, setState, showSame} from "./core.js";
import {lineChart} from "./chart.js";
import {fillClasses, imageField, networkField, resolveClass, showClasses} from "./inputs.js";
import {colorLimit, colorMap, drawBox, drawImage, loadImage, resample, unpack} from "./maps.js";

const USUAL = ["gradient", "gradcam"];
const MIN_DRAWN = 448; // pixels of the canvas on which fields are drawn
const id = name => document.getElementById(`explain-${name}`);
const tiles = new Map(); // by method
let panel = null, classes = [], size = [224, 224], layersOf = null, looks = 0;
let load = () => {}; // the network, if it waits for a press
let areChecked = false; // whether a press asked for checks of the maps, and not only a link

export async function start(part) {
  panel = part;
  id("form").addEventListener("submit", async event => { event.preventDefault(); await load(); run(true); });
  id("check").addEventListener("click", checkMaps);
  id("opacity").addEventListener("input", showOpacity);
  id("cells").addEventListener("change", () => tiles.forEach(color));
  for (const box of id("methods").querySelectorAll("input")) {
    box.checked = chosenMethods().includes(box.value);
    box.addEventListener("change", () => {
      const ticked = [...id("methods").querySelectorAll("input:checked")].map(one => one.value).join(",");
      setState("explain.methods", ticked === USUAL.join(",") ? "" : ticked || "none");
    });
  }
  id("target").value = getState("explain.target");
  id("target").addEventListener("change", () => {
    id("target").value = resolveClass(id("target").value, classes);
    setState("explain.target", id("target").value);
  });
  keyboard(id("field-image"));
  await imageField(panel, "explain");
  load = await networkField(panel, "explain", net => {
    classes = net.classes;
    size = net.size;
    fillClasses("explain", classes);
    run();
    lookAt();
    same();
  });
  onState("explain.", name => {
    if (["explain.image", "explain.target", "explain.methods"].includes(name)) run();
    if (["explain.image", "explain.row", "explain.column", "explain.layer", "explain.net"].includes(name)) lookAt();
    if (name === "explain.net" || name === "explain.image") { areChecked = false; setState("explain.check", ""); }
    if (name === "explain.net") { setState("explain.layer", ""); setAside(); }
    same();
  });
}

function chosenMethods() {
  const text = getState("explain.methods");
  return text === "none" ? [] : text ? text.split(",") : USUAL;
}

const question = () => ({image: getState("explain.image"), net: getState("explain.net"), target: getState("explain.target")});

// ---------------------------------------------------------------- maps

const run = debounce((again = false) => {
  if (!classes.length) return;
  const key = JSON.stringify(question());
  for (const [name, tile] of tiles) {
    if (chosenMethods().includes(name)) continue;
    tile.controller?.abort();
    tile.figure.remove();
    tiles.delete(name);
  }
  for (const name of chosenMethods()) {
    const known = tiles.get(name);
    if (known && known.key === key && !again && !known.failed) continue;
    explain(name, key);
  }
  if (!chosenMethods().length) attempt(panel, () => { throw new Error("tick at least one method"); });
}, 50);

// The maps of another network are dim until this one has its own.
function setAside() {
  id("top").replaceChildren();
  for (const tile of tiles.values()) {
    Object.assign(tile, {key: "", found: null});
    tile.badges.replaceChildren();
    tile.figure.classList.add("failed");
  }
}

function tileOf(name) {
  if (tiles.has(name)) return tiles.get(name);
  const base = element("canvas", {class: "base", role: "img", "aria-label": `The network's input, with the map of ${name}`});
  const over = element("canvas", {class: "over", "aria-hidden": "true"});
  const stack = element("div", {class: "stack gray"}, base, over);
  const title = element("figcaption", {}, name), note = element("p", {class: "note"}), badges = element("div", {class: "badges"});
  const said = element("span", {role: "status"}), cancel = element("button", {type: "button", class: "plain", "aria-label": `Cancel ${name}`}, "Cancel");
  const busy = element("p", {class: "note busy"}, said, " ", cancel);
  const wrong = element("p", {class: "error", role: "alert", hidden: true});
  const tile = {name, base, over, stack, title, note, badges, said, busy, wrong, figure: element("figure", {"data-method": name}, title, stack, busy, wrong, note, badges)};
  cancel.addEventListener("click", () => tile.controller?.abort());
  stack.addEventListener("click", event => pick(base, event));
  tiles.set(name, tile);
  id("tiles").append(tile.figure);
  return tile;
}

// Do something for a tile that may be cancelled, saying for how long it has run.
async function work(tile, what, action) {
  tile.controller?.abort();
  const own = tile.controller = new AbortController(), began = performance.now();
  const say = () => { tile.said.textContent = `${what}, ${Math.round((performance.now() - began) / 1000)} s`; };
  say();
  tile.busy.hidden = false;
  const timer = setInterval(say, 1000);
  try {
    const result = await action(own.signal);
    tile.error = "";
    return result;
  } catch (error) {
    tile.error = error instanceof Cancelled ? "" : error.message;
    return undefined;
  } finally {
    showErrors();
    clearInterval(timer);
    if (tile.controller === own) tile.busy.hidden = true;
  }
}

// What is wrong with all maps is said once above them, what is wrong with one beside it.
function showErrors() {
  const errors = [...tiles.values()].map(tile => tile.error ?? ""), isShared = errors.length > 0 && errors.every(text => text && text === errors[0]);
  const line = panel.querySelector(".error");
  line.hidden = !isShared;
  if (isShared) line.textContent = errors[0];
  for (const tile of tiles.values()) {
    tile.wrong.hidden = isShared || !tile.error;
    tile.wrong.textContent = tile.error ?? "";
  }
}

async function explain(name, key) {
  const tile = tileOf(name);
  Object.assign(tile, {key, failed: false, found: null});
  tile.badges.replaceChildren();
  const found = await work(tile, "computing", signal => post(`/api/explain/map/${name}`, question(), signal));
  if (tile.key !== key) return;
  tile.failed = !found;
  tile.figure.classList.toggle("failed", !found);
  if (!found) return;
  Object.assign(tile, {found, map: unpack(found.map)});
  const {method, target} = found;
  drawImage(tile.base, await loadImage(found.input));
  tile.limit = colorLimit(tile.map, found.signed);
  color(tile);
  showOpacity();
  tile.title.textContent = method.title;
  const cells = tile.map.rows === size[0] && tile.map.columns === size[1] ? "" : `${tile.map.columns} x ${tile.map.rows} cells; `;
  tile.note.textContent = `${cells}${method.unit}; the last color is ${found.signed ? "±" : ""}${tile.limit.toPrecision(3)}, the largest ${method.max?.toPrecision(3)}`;
  tile.base.setAttribute("aria-label", `The network's input, with the map of ${name} for ${target.class}: ${method.unit}`);
  showClasses(id("top"), found.top.some(one => one.class === target.class) ? found.top : [...found.top, target], target.class);
  for (const text of found.warnings) tile.badges.append(badge({name: "caution", verdict: "unclear", short: "", text, about: ""}));
  if (method.checks.completeness_error !== undefined || method.checks.sum_error !== undefined) tile.badges.append(badge(always(method)));
  if (areChecked) check(name);
  if (layersOf !== getState("explain.net") && !getState("explain.row")) offerLayers();
}

function always({checks}) {
  const isCam = checks.sum_error !== undefined, error = checks.sum_error ?? checks.completeness_error;
  return {
    name: isCam ? "mean + bias = logit" : "completeness error", verdict: error == null || error > 0.1 ? "unclear" : "passes",
    short: error == null ? "" : isCam ? `to ${error.toExponential(0)}` : `${(100 * error).toFixed(1)} %`,
    text: isCam ? "The map's mean and the bias give the logit, to rounding: the map belongs to this network."
      : "How far the map's sum is from the difference of the logit to that of a blank image. A small error does not show that the pixels are the right ones.",
    about: "",
  };
}

function color(tile) {
  if (!tile.found) return;
  const map = resample(tile.map, tile.base.width, tile.base.height, {smooth: !id("cells").checked});
  colorMap(tile.over, map, tile.found.signed, tile.limit);
}

function showOpacity() {
  for (const tile of tiles.values()) {
    tile.over.style.opacity = id("opacity").value / 100;
    tile.stack.classList.toggle("gray", id("opacity").value > 0);
  }
}

// ---------------------------------------------------------------- checks

// A map that is still computed is checked once it is there.
async function checkMaps() {
  areChecked = true;
  setState("explain.check", "1");
  await load();
  for (const name of chosenMethods()) if (tiles.get(name)?.found) check(name);
}

async function check(name) {
  const tile = tileOf(name), key = tile.key;
  const found = await work(tile, "checking", signal => post(`/api/explain/check/${name}`, question(), signal));
  if (!found || tile.key !== key) return;
  tile.badges.querySelectorAll(".of-check").forEach(one => one.remove());
  for (const one of found.badges) tile.badges.append(badge(one, "of-check"));
}

function badge(one, more = "") {
  const marks = {passes: "✓", fails: "✗", unclear: "?"}, words = {passes: "passes", fails: "fails", unclear: "not clear"};
  const inside = element("div", {class: "inside"}, element("p", {}, one.text), one.about ? element("p", {class: "note"}, one.about) : null);
  const made = element("details", {class: `badge ${one.verdict} ${more}`},
    element("summary", {}, element("span", {"aria-hidden": "true"}, marks[one.verdict]), ` ${one.name}: `, element("span", {}, one.short || words[one.verdict])), inside);
  if (one.curves) {
    const plot = element("div", {class: "plot"});
    inside.append(plot);
    made.addEventListener("toggle", () => {
      if (!made.open) return;
      const series = one.curves.map((curve, index) => ({name: curve.name, index, points: curve.values.map((value, step) => [step, value])}));
      lineChart(plot, series, {title: one.name, xTitle: one.axis, xDomain: [0, Math.max(1, one.curves[0].values.length - 1)]});
    }, {once: true});
  }
  return made;
}

// ---------------------------------------------------------------- where a cell looks

function pick(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const at = (place, start, length, count) => Math.min(Math.max(Math.floor((place - start) / length * count), 0), count - 1);
  setPixel(at(event.clientY, box.top, box.height, size[0]), at(event.clientX, box.left, box.width, size[1]));
}

function setPixel(row, column) {
  for (const [name, value] of [["row", row], ["column", column]]) {
    id(name).value = value;
    setState(`explain.${name}`, String(value));
  }
}

function keyboard(canvas) {
  canvas.addEventListener("click", event => pick(canvas, event));
  const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  canvas.addEventListener("keydown", event => {
    if (!moves[event.key]) return;
    event.preventDefault();
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(size[0] / 28));
    const to = (name, axis) => Math.min(Math.max(Number(id(name).value) + step * moves[event.key][axis], 0), size[axis] - 1);
    setPixel(to("row", 0), to("column", 1));
  });
}

function showLayers(names) {
  const layers = [element("option", {value: ""}, `${names.at(-1)} (the last one)`), ...[...new Set(names)].map(name => element("option", {value: name}, name))];
  id("layer").replaceChildren(...layers);
  id("layer").dataset.initial = "";
  id("layer").value = getState("explain.layer");
}

// The layers that can be chosen, asked for when the first map is there: the first look at a network takes seconds.
async function offerLayers() {
  const name = layersOf = getState("explain.net");
  const answer = await get("/api/explain/layers", {net: name}).catch(() => null);
  if (answer && name === getState("explain.net")) showLayers(answer.layers);
}

const lookAt = debounce(async () => {
  const [row, column] = [getState("explain.row"), getState("explain.column")];
  if (!row || !column || !classes.length) return;
  const own = ++looks;
  id("field-status").textContent = "computing";
  const found = await attempt(panel, () => post("/api/explain/field", {...question(), row, column, layer: getState("explain.layer")}));
  if (own !== looks) return; // another pixel was chosen meanwhile
  id("field-status").textContent = "";
  if (!found) { id("field").hidden = true; return; }
  showLayers(found.layers);
  const input = await loadImage(found.input), canvas = id("field-image");
  id("field").hidden = false;
  const scale = Math.max(1, Math.round(MIN_DRAWN / size[1])); // lines need pixels of their own on a small input
  drawImage(canvas, input, size[1] * scale, size[0] * scale);
  for (const kind of ["theoretical", "effective"]) {
    const part = found[kind], patch = id(kind);
    patch.closest("figure").hidden = !part;
    if (!part) continue;
    const [left, top, right, bottom] = part.box;
    patch.width = right - left;
    patch.height = bottom - top;
    patch.getContext("2d").drawImage(input, left, top, right - left, bottom - top, 0, 0, right - left, bottom - top);
    patch.setAttribute("aria-label", `The patch from column ${left}, row ${top} to ${right}, ${bottom}: ${part.top[0].class}`);
    showClasses(id(`${kind}-top`), part.top);
    drawBox(canvas, part.box.map(at => at * scale), kind === "theoretical" ? "#56b4e9" : "#ffd400", {dashed: kind === "effective"});
  }
  const [cellRow, cellColumn] = found.cell, [left, top, right, bottom] = found.field;
  canvas.setAttribute("aria-label", `The network's input with both receptive fields of the cell in row ${cellRow}, column ${cellColumn}. Arrow keys move.`);
  id("field-status").textContent = [`${found.layer}: cell in row ${cellRow}, column ${cellColumn} of ${found.cells[0]} x ${found.cells[1]}; it can depend on ${right - left} x ${bottom - top} pixels`,
    left < 0 || top < 0 || right > size[1] || bottom > size[0] ? ", partly padding" : "", ...found.warnings.map(text => `; ${text}`)].join("");
}, 120);

const same = debounce(async () => {
  if (!classes.length) return;
  const values = {...question(), method: chosenMethods(), check: getState("explain.check")};
  for (const name of ["row", "column", "layer"]) values[name] = getState(`explain.${name}`);
  if (!values.method.length) return showSame(id("same"), null);
  return showSame(id("same"), await get("/api/explain/same", values).catch(() => null));
});
