// The tab Fool: the image climbs to another class, is watched, and its saved file is judged.
import {attempt, debounce, element, get, getState, getStates, onState, percent, post, setState, showSame, statesOf} from "./core.js";
import {lineChart} from "./chart.js";
import {cancellable, fillClasses, imageField, networkField, resolveClass, showClasses} from "./inputs.js";
import {drawImage, loadImage, pixelsOf} from "./maps.js";

const MAX_VICTIMS = 24; // ticks that are offered
const SETTINGS = ["budget", "step_size", "max_steps", "confidence", "objective", "shortest"];
const id = name => document.getElementById(`fool-${name}`);
let panel = null, classes = [], running = null, pair = null;
let load = () => {}; // the network, if it waits for a press

export async function start(part) {
  panel = part;
  running = cancellable(id("cancel"));
  id("form").addEventListener("submit", async event => { event.preventDefault(); await load(); climb(); });
  id("gain").addEventListener("input", showDifference);
  id("target").value = getState("fool.target");
  id("target").addEventListener("change", () => {
    id("target").value = resolveClass(id("target").value, classes);
    setState("fool.target", id("target").value);
  });
  await imageField(panel, "fool");
  load = await networkField(panel, "fool", (net, list) => {
    classes = net.classes;
    fillClasses("fool", classes);
    showVictims(list);
    same();
  });
  onState("fool.", name => { if (name !== "fool.gain") same(); });
}

const ticked = () => [...id("victims").querySelectorAll("input:checked")].map(tick => tick.value);

function showVictims(list) {
  const own = getState("fool.net") || list.bundled[0], chosen = getStates("fool.victim");
  const others = [...list.bundled.map(name => ({value: name, name})), ...list.runs].filter(one => one.value !== own).slice(0, MAX_VICTIMS);
  const ticks = others.map(one => {
    const box = element("input", {type: "checkbox", value: one.value});
    box.checked = chosen.includes(one.value);
    box.addEventListener("change", () => setState("fool.victim", ticked()));
    return element("label", {class: "tick"}, box, ` ${one.name}`);
  });
  id("victims").replaceChildren(id("victims").querySelector("legend"), ...ticks);
}

function question() {
  const values = statesOf("fool.");
  return {image: getState("fool.image"), net: getState("fool.net"), target: getState("fool.target"), victim: ticked(),
    ...Object.fromEntries(SETTINGS.map(name => [name, values[name] ?? ""]))};
}

async function climb() {
  id("target").dispatchEvent(new Event("change"));
  let isOver = false;
  const found = await running(async signal => {
    id("status").textContent = "climbing";
    for (const name of ["views", "climb", "judged"]) id(name).hidden = true;
    id("verdict").textContent = "";
    pair = null;
    const watched = watch(() => isOver || signal.aborted);
    try {
      return await attempt(panel, () => post("/api/fool/climb", question(), signal));
    } finally {
      isOver = true;
      await watched;
      id("status").textContent = signal.aborted ? "cancelled" : "";
    }
  });
  if (found) await show(found);
}

// The path and the image while it climbs.
async function watch(isOver) {
  let seen = 0;
  while (!isOver()) {
    const news = await get("/api/fool/progress", {seen}).catch(() => ({path: []}));
    if (!isOver() && news.image) {
      seen = news.path.length;
      showPath(news.path);
      id("views").hidden = false;
      id("now").textContent = `Step ${seen - 1}`;
      drawImage(id("fooling"), await loadImage(news.image));
      id("fooling").setAttribute("aria-label", `The image at step ${seen - 1}`);
      id("status").textContent = `step ${seen - 1}: ${percent(news.path.at(-1))}`;
    }
    await new Promise(done => setTimeout(done, 250));
  }
}

function showPath(path) {
  id("climb").hidden = false;
  const points = path.map((value, step) => [step, value]);
  lineChart(id("path"), [{name: "the class to reach", index: 0, points}], {
    title: "The probability of the class to reach", xTitle: "step", xDomain: [0, Math.max(1, path.length - 1)], yDomain: [0, 1], format: value => `${Math.round(100 * value)} %`,
  });
}

async function show(found) {
  const target = found.target.class;
  id("views").hidden = false;
  id("now").textContent = "After, in 8 bits";
  drawImage(id("clean"), await loadImage(found.clean));
  drawImage(id("fooling"), await loadImage(found.fooling));
  id("clean").setAttribute("aria-label", `The image before: ${found.before.class}`);
  id("fooling").setAttribute("aria-label", `The image after: ${found.after.class}`);
  pair = {before: pixelsOf(id("clean")), after: pixelsOf(id("fooling"))};
  showDifference();
  showClasses(id("before"), found.top_before, target);
  showClasses(id("after"), found.top_after, target);
  showPath(found.path);
  const verdict = found.fooled ? `Fooled: ${found.before.class} is now ${target} (${percent(found.after.probability)})` : `Not fooled: it is still ${found.after.class}, ${target} has ${percent(found.after.target_probability)}`;
  id("verdict").textContent = [`${verdict}, after ${found.steps} ${found.steps === 1 ? "step" : "steps"}; L2 ${found.l2.toFixed(2)}, at most ${found.linf_levels} of 255 levels in a value.`, ...found.warnings].join(" ");
  judge(found);
}

function judge(found) {
  const target = found.target.class;
  const row = (network, before, after) => {
    const hit = after.class === target, changed = before && after.class !== before.class;
    const [mark, word] = hit ? ["worse", "fooled"] : changed ? ["worse", "another class"] : ["better", "not fooled"];
    return element("tr", {}, element("td", {}, network), element("td", {}, before ? `${before.class} ${percent(before.probability)}` : ""), element("td", {}, `${after.class} ${percent(after.probability)}`),
      element("td", {class: "number"}, `${percent(after.target_probability)}, rank ${after.target_rank}`), element("td", {}, element("span", {class: `state ${mark}`}, word)));
  };
  id("table").tBodies[0].replaceChildren(
    row("this network", found.before, found.after),
    row("this network, after opening the file as any photo", found.before, found.after_preprocessing),
    ...Object.entries(found.networks ?? {}).map(([name, judged]) => row(name, judged.before, judged.after)));
  id("judged").hidden = false;
  id("file-about").textContent = `${found.file}: PNG, 8 bits, ${id("fooling").width} x ${id("fooling").height} pixels, ${found.bytes.toLocaleString("en")} bytes. Everything here is said of these bytes.`;
  id("download").href = found.fooling;
  id("download").download = found.file;
}

// Gray is no difference; the gain multiplies it.
function showDifference() {
  const canvas = id("difference"), gain = Number(id("gain").value);
  id("difference-title").textContent = `Difference, x ${gain}`;
  if (!pair) return;
  const {before, after} = pair, shown = new ImageData(before.width, before.height);
  for (let at = 0; at < shown.data.length; at++) {
    shown.data[at] = at % 4 < 3 ? 127.5 + gain * (after.data[at] - before.data[at]) : 255;
  }
  canvas.width = before.width;
  canvas.height = before.height;
  canvas.getContext("2d").putImageData(shown, 0, 0);
  canvas.setAttribute("aria-label", `The difference times ${gain}; gray is none`);
}

const same = debounce(async () => {
  const asked = question();
  showSame(id("same"), asked.target && classes.length ? await get("/api/fool/same", asked).catch(() => null) : null);
});
