// The tab Train: the form, the list of runs, the curves of the chosen run.
import {attempt, bindControl, debounce, duration, element, get, getState, number, onState, percent, poll, post, setState, showOptionFields, showSame, statesOf} from "./core.js";
import {lineChart} from "./chart.js";
import {bindNetwork, timmChoice} from "./inputs.js";
import {showPlayback, start as startPlayback} from "./playback.js";

const id = name => document.getElementById(`train-${name}`);
const CAN_RESUME = ["stopped", "killed", "failed", "new"];
let offer = null, look = () => {}, lastRuns = "", lastCurves = "", curvesRun = null; // whose curves are shown

export async function start(panel) {
  id("form").addEventListener("submit", event => { event.preventDefault(); submit(panel); });
  id("extend-go").addEventListener("click", () => goOn(panel, curvesRun.name, id("extend").value));
  // Where the form stands above the runs it is short, so that they are seen.
  if (id("form").parentElement.children[1].offsetTop > id("form").offsetTop) {
    id("options").closest("details").open = Object.keys(statesOf("train.option.")).length > 0;
  }
  startPlayback();
  offer = await attempt(panel, () => get("/api/train/offer"));
  if (offer) fillControls();
  onState("train.", name => {
    if (name === "train.data") describeData();
    if (name === "train.net") showOptions();
    if (name === "train.run") { lastCurves = ""; setState("train.epoch", ""); look(); }
    else if (name === "train.extend") sameAsResume();
    else if (name !== "train.epoch") check(panel);
  });
  check(panel);
  look = poll(panel, () => update(panel));
}

// ---------------------------------------------------------------- the form

function fillControls() {
  const {data, net, optimizer, schedule, recipe} = offer;
  fill(id("data"), data.map(one => one.name), recipe.data.name);
  id("net").replaceChildren(...choices(net.map(one => one.name), recipe.model.name), timmChoice());
  bindNetwork("train");
  fill(id("optimizer"), optimizer, recipe.optimizer.name);
  fill(id("schedule"), schedule, recipe.schedule.name);
  for (const input of id("form").querySelectorAll("[data-key]")) {
    const [section, key] = input.dataset.key.split(".");
    input.placeholder = recipe[section][key];
  }
  describeData();
  showOptions();
}

// The default one stands first and is not in the address.
const choices = (names, usual) => [element("option", {value: ""}, usual), ...names.filter(name => name !== usual).map(name => element("option", {value: name}, name))];

function fill(control, names, usual) {
  control.replaceChildren(...choices(names, usual));
  control.dataset.initial = "";
  bindControl(control);
}

const chosen = (name, usual) => offer[name].find(one => one.name === (getState(`train.${name}`) || usual));

function describeData() {
  const set = chosen("data", offer.recipe.data.name);
  if (!set) return;
  id("data-about").textContent = set.about + (set.is_here ? "" : `; not here yet: ${set.download_mb} MB are downloaded first`);
  id("augment").placeholder = set.augment.join(", ") || "none";
}

function showOptions() {
  const net = chosen("net", offer.recipe.model.name);
  id("net-about").textContent = net ? net.about : "";
  showOptionFields(id("options"), "train.option.", net?.options ?? []);
}

function formValues() {
  const values = statesOf("train.");
  for (const name of ["run", "extend", "epoch"]) delete values[name];
  return values;
}

const check = debounce(async panel => {
  const same = await attempt(panel, () => post("/api/train/check", formValues()));
  showSame(id("same"), same);
  if (same) id("name").placeholder = same.name;
});

async function submit(panel) {
  const started = await attempt(panel, () => post("/api/train/start", formValues()));
  if (!started) return;
  id("message").textContent = `${started.name} is in the queue.`;
  id("name").value = "";
  setState("train.name", "");
  setState("train.run", started.name);
  check(panel);
  look();
}

// ---------------------------------------------------------------- runs

async function update(panel) {
  const list = await attempt(panel, () => get("/api/runs"), "poll");
  if (!list) return 5;
  const text = JSON.stringify(list) + getState("train.run");
  if (text !== lastRuns) showRuns(panel, list);
  lastRuns = text;
  const isActive = list.runs.some(run => run.job || run.status === "running");
  await showCurves(panel, list.runs);
  await showPlayback(panel, shownRun(list.runs));
  return isActive ? 2 : 10;
}

function showRuns(panel, {runs, failed}) {
  const table = id("runs"), focused = document.activeElement?.dataset.key;
  id("none").hidden = runs.length > 0;
  table.hidden = !runs.length;
  const shown = shownRun(runs);
  table.tBodies[0].replaceChildren(...runs.map(run => element("tr", {class: run === shown ? "chosen" : null},
    element("td", {class: "wide"}, element("button", {type: "button", class: "name", "data-key": `show ${run.name}`, "aria-pressed": String(run === shown), onclick: () => setState("train.run", run.name)}, run.name),
      element("div", {class: "what"}, run.network ? `${run.network} on ${run.data}, seed ${run.seed}` : run.reason ?? "")),
    element("td", {}, element("span", {class: `state ${run.status}`}, run.status)),
    element("td", {class: "number", "data-label": "epochs"}, run.epochs ? `${run.epochs_done} of ${run.epochs}` : ""),
    element("td", {class: "number", "data-label": "validation"}, percent(run.best)),
    element("td", {class: "number", "data-label": "images/s"}, number(run.images_per_second)),
    element("td", {class: "number", "data-label": "left"}, duration(run.seconds_left)),
    element("td", {}, action(panel, run)))));
  id("failed").replaceChildren(...failed.map(job => element("p", {class: "note"}, `${job.run}: ${job.message}`)));
  if (focused) table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus(); // a new list keeps the keyboard's place
}

function action(panel, run) {
  const button = (label, act) => element("button", {type: "button", class: "plain", "data-key": `do ${run.name}`, "aria-label": `${label} ${run.name}`, onclick: act}, label);
  if (run.job && !["stopping", "finished"].includes(run.status)) return button("Stop", () => act(panel, () => post("/api/jobs/stop", {job: run.job})));
  if (!run.job && CAN_RESUME.includes(run.status)) return button("Resume", () => goOn(panel, run.name, ""));
  return "";
}

async function act(panel, request) {
  const answer = await attempt(panel, request);
  look();
  return answer;
}

async function goOn(panel, run, epochs) {
  const started = await act(panel, () => post("/api/train/resume", {run, epochs}));
  if (!started) return;
  id("message").textContent = `${started.name} is in the queue.`;
  setState("train.run", started.name);
}

// ---------------------------------------------------------------- curves

const shownRun = runs => runs.find(run => run.name === getState("train.run"))
  ?? runs.find(run => run.status === "running" && run.epochs_done) ?? runs.find(run => run.epochs_done) ?? runs[0];

async function showCurves(panel, runs) {
  const run = shownRun(runs);
  id("curves").hidden = !run?.epochs;
  if (!run?.epochs) return;
  const key = `${run.name} ${run.epochs_done} ${run.status} ${run.test}`;
  if (key === lastCurves) return;
  const [found] = await attempt(panel, () => get("/api/runs/curves", {run: run.name}), "poll") ?? [];
  if (!found) return;
  lastCurves = key;
  curvesRun = run;
  sameAsResume();
  sameAsTest(run);
  id("curves-title").textContent = run.name;
  id("curves-about").textContent = describe(run);
  id("more-epochs").hidden = run.status !== "finished";
  id("recipe").textContent = found.recipe;
  const points = name => found.epoch.map((epoch, index) => [epoch, found.curves[name][index]]);
  const pair = name => [
    {name: "training", points: points(`train_${name}`), index: 0},
    {name: "validation", points: points(`validation_${name}`), index: 1},
  ].filter(one => one.points.some(([, value]) => value != null));
  const xDomain = [1, Math.max(2, found.epochs)];
  lineChart(id("loss"), pair("loss"), {title: "Loss", xDomain});
  lineChart(id("accuracy"), pair("accuracy"), {title: "Accuracy", xDomain, format: percent, tickFormat: value => `${Math.round(100 * value)} %`});
}

// How the run goes on: a finished one with more epochs, once they are typed, and one that can be resumed.
const sameAsResume = debounce(async () => {
  if (!curvesRun) return;
  const {name, status} = curvesRun, epochs = status === "finished" ? getState("train.extend") : "";
  const goesOn = epochs || CAN_RESUME.includes(status);
  const found = goesOn ? await get("/api/train/same-as-resume", {run: name, epochs}).catch(() => null) : null;
  if (name === curvesRun.name) showSame(id("resume-same"), found);
});

// How a run is tested, which the page leaves to a command: the test images are used once.
async function sameAsTest(run) {
  const found = run.is_to_test ? await get("/api/train/same-as-test", {run: run.name}).catch(() => null) : null;
  if (run.name === curvesRun.name) showSame(id("test-same"), found);
}

function describe(run) {
  const parts = [`${run.network} on ${run.data}, seed ${run.seed}`, run.num_parameters ? `${number(run.num_parameters)} parameters` : "",
    run.best == null ? "" : `best validation accuracy ${percent(run.best)}`, run.test == null ? "" : `test ${percent(run.test)}`, run.reason ?? ""];
  return parts.filter(Boolean).join("; ");
}
