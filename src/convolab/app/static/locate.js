// The tab Locate: responses over a large image, boxes that follow the threshold, three placements side by side.
import {attempt, debounce, element, get, getState, getStates, onState, percent, post, setState, showSame} from "./core.js";
import {cancellable, fillClasses, imageField, networkField, resolveClass} from "./inputs.js";
import {colorLimit, colorMap, drawBox, drawImage, loadImage, regions, resample, unpack} from "./maps.js";

const MAX_PIXELS = 300_000; // of the image that boxes are found on: a slider's move takes less than a tenth of a second
const COLORS = ["#ffd400", "#56b4e9", "#ff8b4a", "#2cc295", "#e79cc6", "#ffffff"];
const id = name => document.getElementById(`locate-${name}`);
let panel = null, classes = [], running = null, comparing = null, placements = null;
let load = () => {}; // the network, if it waits for a press
let found = null; // what is shown: the answer of a search, with its question and its image

export async function start(part) {
  panel = part;
  running = cancellable(id("cancel"));
  comparing = cancellable(element("button"));
  id("form").addEventListener("submit", async event => { event.preventDefault(); addClass(); await load(); run(); });
  id("target").addEventListener("change", addClass);
  id("compare").addEventListener("click", compare);
  id("threshold").value = 100 * (Number(getState("locate.threshold")) || 0.3);
  id("threshold").addEventListener("input", () => {
    const share = id("threshold").value / 100;
    setState("locate.threshold", share === 0.3 ? "" : String(share));
    showBoxes();
  });
  id("wipe").addEventListener("input", showWipe);
  id("opacity").addEventListener("input", showWipe);
  id("side").addEventListener("input", () => { id("scale").value = `${id("side").value}px`; id("scale").dispatchEvent(new Event("input")); });
  id("shown").addEventListener("change", showResponse);
  showChips();
  await imageField(panel, "locate");
  load = await networkField(panel, "locate", net => { classes = net.classes; fillClasses("locate", classes); run(); same(); });
  onState("locate.", name => {
    if (["locate.image", "locate.target", "locate.scale", "locate.alignment", "locate.granularity"].includes(name)) run();
    if (name === "locate.target") showChips();
    if (name === "locate.net") clear();
    same();
  });
}

function addClass() {
  const name = resolveClass(id("target").value, classes);
  id("target").value = "";
  if (name && !getStates("locate.target").includes(name)) setState("locate.target", [...getStates("locate.target"), name]);
}

function showChips() {
  const names = getStates("locate.target");
  id("chips").hidden = !names.length;
  id("chips").replaceChildren(...names.map((name, index) => element("li", {}, swatch(index), name,
    element("button", {type: "button", "aria-label": `Do not find ${name}`, onclick: () => { setState("locate.target", names.filter(one => one !== name)); id("target").focus(); }}, "×"))));
}

function swatch(index) {
  const made = element("span", {class: "swatch", "aria-hidden": "true"});
  made.style.background = COLORS[index % COLORS.length];
  return made;
}

const question = () => ({image: getState("locate.image"), net: getState("locate.net"), target: getStates("locate.target"), scale: getState("locate.scale"),
  alignment: getState("locate.alignment"), granularity: getState("locate.granularity")});

// ---------------------------------------------------------------- one placement

const run = debounce(async () => {
  if (!classes.length) return;
  await running(async signal => {
    id("status").textContent = getState("locate.alignment") ? "locating" : "locating; the first time with a network its cells are measured";
    const asked = question();
    const answer = await attempt(panel, async () => {
      const located = await post("/api/locate/find", asked, signal);
      const image = await loadImage(`/api/images/show?${new URLSearchParams({image: asked.image || "motorcycle_left"})}`);
      return {...located, question: asked, image};
    });
    if (signal.aborted) {
      id("status").textContent = "cancelled";
      return;
    }
    id("status").textContent = "";
    if (!answer) return clear();
    found = answer;
    for (const one of found.classes) one.responses = one.responses.map(unpack);
    placements = null;
    id("placements").replaceChildren();
    show();
  });
}, 250);

// Nothing of a search stays beside the error of another search or network.
function clear() {
  found = placements = null;
  for (const name of ["stack", "table", "shown-field"]) id(name).hidden = true;
  id("about").textContent = "";
  id("placements").replaceChildren();
}

// The size of the image that responses are drawn on.
function canvasSize() {
  const [height, width] = found.size, factor = Math.min(1, Math.sqrt(MAX_PIXELS / (height * width)));
  return [Math.round(width * factor), Math.round(height * factor)];
}

// The mean response over the scales at every pixel, with the cells where a placement puts them.
function heatmap(one, scales) {
  const [width, height] = canvasSize();
  const maps = Object.values(scales).map((scale, index) => {
    const factor = [height / scale.size[0], width / scale.size[1]]; // from what the network saw to what is drawn
    const start = scale.start.map((at, axis) => (at + 0.5) * factor[axis] - 0.5), stride = scale.stride.map((at, axis) => at * factor[axis]);
    return resample(one.responses[index], width, height, {start, stride});
  });
  if (maps.length > 1) maps[0].values.forEach((_, at) => { maps[0].values[at] = maps.reduce((sum, map) => sum + map.values[at], 0) / maps.length; });
  return maps[0];
}

function show() {
  const [width, height] = canvasSize();
  for (const one of found.classes) one.map = heatmap(one, found.scales);
  id("stack").hidden = false;
  drawImage(id("canvas"), found.image, width, height);
  const shown = getState("locate.shown");
  id("shown").replaceChildren(...found.classes.map(one => element("option", {value: one.label}, one.label)));
  id("shown-field").hidden = found.classes.length < 2;
  if (found.classes.some(one => one.label === shown)) id("shown").value = shown;
  id("about").textContent = [...found.summary.slice(0, 1), ...found.summary.filter(line => line.startsWith("aligned")), ...found.warnings].join(". ");
  const side = Math.min(...Object.values(found.scales)[0].size);
  if (side >= 64 && side <= 1600) id("side").value = side;
  showResponse();
  showWipe();
  showBoxes();
}

function showResponse() {
  const one = found?.classes.find(known => known.label === id("shown").value) ?? found?.classes[0];
  if (one) colorMap(id("response"), one.map, true, colorLimit(one.map, true));
}

function showWipe() {
  id("response").style.opacity = id("opacity").value / 100;
  id("response").style.clipPath = `inset(0 0 0 ${id("wipe").value}%)`;
}

// Boxes in pixels of the original image.
function boxesOf(map) {
  const across = found.size[1] / map.columns, down = found.size[0] / map.rows;
  return regions(map, id("threshold").value / 100).map(part => [part.left * across, part.top * down, part.right * across, part.bottom * down].map(Math.round));
}

function drawBoxes(canvas, boxes, color, strongest = 5) {
  const scale = [canvas.width / found.size[1], canvas.height / found.size[0]];
  boxes.slice(0, strongest).forEach((box, index) => drawBox(canvas, box.map((at, axis) => at * scale[axis % 2]), color, {dashed: index > 0}));
}

function showBoxes() {
  id("threshold-value").textContent = `${id("threshold").value} % of the largest response`;
  if (!found) return;
  const canvas = id("boxes"), [width, height] = canvasSize();
  canvas.width = width;
  canvas.height = height;
  const rows = found.classes.map((one, index) => {
    const boxes = boxesOf(one.map), [first] = boxes;
    drawBoxes(canvas, boxes, COLORS[index % COLORS.length]);
    const judged = first && one.detections.find(known => known.box.every((at, axis) => Math.abs(at - first[axis]) <= 4));
    return element("tr", {"data-class": one.label}, element("td", {}, swatch(index), one.label), element("td", {class: "number"}, percent(one.probability)), element("td", {class: "number"}, String(boxes.length)),
      element("td", {class: "box"}, first ? `${first[0]}, ${first[1]} to ${first[2]}, ${first[3]}` : "not found: its response is nowhere above 0"),
      element("td", {class: "number"}, first ? (judged ? percent(judged.confidence) : "…") : ""));
  });
  id("table").hidden = false;
  id("table").tBodies[0].replaceChildren(...rows);
  const described = found.classes.map(one => `${one.label}: ${boxesOf(one.map).length} boxes`).join(", ");
  id("canvas").setAttribute("aria-label", `${found.name}, with the boxes of ${described}; the table below lists them`);
  showPlacements();
  judge();
}

// The probabilities in the boxes of a threshold: the server's, once the slider rests. It is asked about what is shown, whatever the
// controls ask for by now, and its answer is for that and for that threshold alone.
const judge = debounce(async () => {
  if (!found || !id("table").textContent.includes("…")) return;
  const asked = found, threshold = id("threshold").value;
  const answer = await attempt(panel, () => post("/api/locate/judge", {...asked.question, threshold: String(threshold / 100)}));
  if (!answer || asked !== found || threshold !== id("threshold").value) return;
  for (const one of answer.classes) {
    const known = found.classes.find(other => other.label === one.label);
    if (known) known.detections = one.detections;
  }
  showNumbers();
}, 400);

function showNumbers() {
  for (const row of id("table").tBodies[0].rows) {
    const one = found.classes.find(known => known.label === row.dataset.class);
    if (row.lastChild.textContent === "…") row.lastChild.textContent = percent(one?.detections[0]?.confidence);
  }
}

// ---------------------------------------------------------------- placements

const compare = () => comparing(async signal => {
  const asked = found;
  if (!asked) return;
  id("compare-status").textContent = "computing; the first time with a network its cells are measured";
  const answer = await attempt(panel, () => post("/api/locate/placements", asked.question, signal));
  id("compare-status").textContent = "";
  if (!answer || asked !== found) return; // another search is shown by now
  placements = answer;
  id("placements").replaceChildren();
  showPlacements();
});

function showPlacements() {
  if (!placements || !found) return;
  const [width, height] = canvasSize(), place = id("placements"), one = found.classes[0];
  if (!place.firstChild) { // all of them before one is drawn, so that each has its width
    place.append(...Object.keys(placements).map(name => element("figure", {"data-placement": name},
      element("figcaption", {}, name), element("canvas", {role: "img"}), element("p", {class: "note"}))));
    for (const placed of Object.values(placements)) placed.map = heatmap(one, placed.scales);
  }
  for (const [name, placed] of Object.entries(placements)) {
    const figure = place.querySelector(`[data-placement="${name}"]`);
    const canvas = figure.querySelector("canvas"), over = element("canvas");
    drawImage(canvas, found.image, width, height);
    colorMap(over, placed.map, true, colorLimit(placed.map, true));
    const context = canvas.getContext("2d");
    context.globalAlpha = id("opacity").value / 100;
    context.drawImage(over, 0, 0);
    context.globalAlpha = 1;
    const boxes = boxesOf(placed.map);
    drawBoxes(canvas, boxes, COLORS[0], 1);
    const text = boxes.length ? `${boxes[0][0]}, ${boxes[0][1]} to ${boxes[0][2]}, ${boxes[0][3]}` : "nothing found";
    figure.querySelector("p").textContent = `${one.label}: ${text}. ${placed.about}`;
    canvas.setAttribute("aria-label", `${one.label} placed by ${name}: ${text}`);
  }
}

const same = debounce(async () => {
  if (!classes.length) return;
  showSame(id("same"), await get("/api/locate/same", {...question(), threshold: getState("locate.threshold")}).catch(() => null));
});
