// A run played back: the first layer's filters and a few images' predictions, epoch by epoch.
import {attempt, element, get, getState, setState} from "./core.js";
import {showClasses} from "./inputs.js";

const PAUSE = 350; // milliseconds between two epochs
const id = name => document.getElementById(`train-${name}`);
let shown = null, kept = null, filters = null, places = [], playing = 0;

export function start() {
  id("frame").addEventListener("input", () => { stop(); choose(Number(id("frame").value)); });
  id("play").addEventListener("click", () => playing ? stop() : play());
}

// Show what a run has; it is asked for again when the run has more epochs.
export async function showPlayback(panel, run) {
  id("playback").hidden = !run?.has_playback || !run.epochs_done;
  if (id("playback").hidden) { stop(); shown = null; return; }
  const key = `${run.name} ${run.epochs_done} ${run.status}`;
  if (key === shown) return;
  const found = await attempt(panel, () => get("/api/runs/playback", {run: run.name}), "poll");
  if (!found) { id("playback").hidden = true; return; }
  shown = key;
  kept = found;
  filters = found.filters && element("img", {alt: "The filters of the first layer"});
  places = found.images.map(() => element("ul", {class: "classes"}));
  id("frames").replaceChildren(...(filters ? [element("figure", {}, element("figcaption", {}, "Filters of the first layer"), filters)] : []),
    ...found.images.map((source, index) => element("figure", {}, element("figcaption", {}, found.labels[index]), element("img", {src: source, alt: `An image of ${found.labels[index]}`}), places[index])));
  id("frame").max = found.epochs.length - 1;
  const wanted = found.epochs.indexOf(Number(getState("train.epoch")));
  draw(wanted < 0 ? found.epochs.length - 1 : wanted);
}

function draw(index) {
  id("frame").value = index;
  id("frame-epoch").textContent = kept.epochs[index];
  id("frame").setAttribute("aria-valuetext", `epoch ${kept.epochs[index]}`);
  if (filters) filters.src = kept.filters[index];
  places.forEach((place, image) => showClasses(place, kept.top[index][image], kept.labels[image]));
}

function choose(index) {
  draw(index);
  setState("train.epoch", index === kept.epochs.length - 1 ? "" : String(kept.epochs[index]));
}

function play() {
  let index = Number(id("frame").value) + 1;
  if (index > Number(id("frame").max)) index = 0;
  id("play").textContent = "Pause";
  const step = () => {
    choose(index++);
    if (index > Number(id("frame").max)) stop();
  };
  playing = setInterval(step, PAUSE);
  step();
}

function stop() {
  clearInterval(playing);
  playing = 0;
  id("play").textContent = "Play";
}
