// The tab Compare: what is ticked, its curves and verdicts, the report, and the form of a study.
import {attempt, debounce, element, get, getState, getStates, onState, percent, poll, post, setState, showSame, statesOf} from "./core.js";
import {intervalChart, lineChart} from "./chart.js";

const id = name => document.getElementById(`compare-${name}`);
const CURVE_TITLES = {
  train_loss: ["Training loss", "nats; lower is better"], validation_loss: ["Validation loss", "nats; lower is better"],
  train_accuracy: ["Training accuracy", "share of the images"], validation_accuracy: ["Validation accuracy", "share of the images"],
};
const MARKS = {better: "▲ better", worse: "▼ worse", equivalent: "= equivalent", undecided: "? undecided"};
let look = () => {}, lastList = "", lastResult = "", list = {runs: [], studies: []};

export async function start(panel) {
  id("form").addEventListener("submit", event => { event.preventDefault(); submit(panel); });
  id("clear").addEventListener("click", () => { setState("compare.study", ""); setState("compare.run", ""); });
  id("baseline").addEventListener("change", event => setState("compare.run", [event.target.value, ...getStates("compare.run").filter(run => run !== event.target.value)]));
  id("report").addEventListener("click", openReport);
  const show = debounce(() => { lastList = ""; look(); }, 50);
  for (const prefix of ["compare.run", "compare.study"]) {
    onState(prefix, () => { id("frame").replaceChildren(); show(); }); // a report is of what was ticked before
  }
  const form = debounce(() => check(panel));
  for (const prefix of ["compare.grid", "compare.seeds", "compare.name", "train."]) onState(prefix, form);
  if (getState("compare.grid")) check(panel);
  look = poll(panel, () => update(panel));
}

async function update(panel) {
  const found = await attempt(panel, () => get("/api/compare/list"), "poll");
  if (!found) return 5;
  list = found;
  const text = JSON.stringify([list.runs.map(run => [run.name, run.status, run.epochs_done]), list.studies, list.failed]);
  if (text !== lastList) showList(panel);
  lastList = text;
  await compare(panel);
  return list.studies.some(study => study.job) || list.runs.some(run => run.status === "running") ? 3 : 10;
}

// ---------------------------------------------------------------- ticks

function tick(name, isTicked, what, onchange, extra) {
  const key = `compare-tick-${name}`;
  return element("li", {}, element("input", {type: "checkbox", id: key, checked: isTicked, onchange}),
    element("label", {for: key}, name, element("div", {class: "what"}, what)), extra);
}

function showList(panel) {
  const focused = document.activeElement?.id;
  const runs = getStates("compare.run"), study = getState("compare.study");
  id("studies").replaceChildren(...list.studies.map(one => tick(one.name, one.name === study, `a study${one.state ? `, ${one.state}` : ""}`,
    event => { setState("compare.study", event.target.checked ? one.name : ""); if (event.target.checked) setState("compare.run", ""); },
    one.job ? element("button", {type: "button", class: "plain", "aria-label": `Stop ${one.name}`, onclick: () => stop(panel, one.job)}, "Stop") : null)));
  id("runs").replaceChildren(...list.runs.map(run => tick(run.name, runs.includes(run.name), `${run.network} on ${run.data}, seed ${run.seed}; ${percent(run.best)}`,
    event => {
      setState("compare.run", event.target.checked ? [...getStates("compare.run"), run.name] : getStates("compare.run").filter(name => name !== run.name));
      if (event.target.checked) setState("compare.study", "");
    })));
  for (const name of ["studies", "runs"]) id(name).hidden = !id(name).children.length;
  id("none").hidden = list.runs.length + list.studies.length > 0;
  id("baseline").replaceChildren(...runs.map(name => element("option", {value: name}, name)));
  id("baseline").parentElement.hidden = runs.length < 2;
  id("failed").replaceChildren(...list.failed.map(job => element("p", {class: "note"}, `${job.run}: ${job.message}`)));
  if (focused) document.getElementById(focused)?.focus(); // a new list keeps the keyboard's place
}

async function stop(panel, job) {
  await attempt(panel, () => post("/api/jobs/stop", {job}));
  look();
}

// ---------------------------------------------------------------- the comparison

const ticked = () => JSON.stringify([getStates("compare.run"), getState("compare.study")]);

async function compare(panel) {
  const runs = getStates("compare.run"), study = getState("compare.study"), asked = ticked();
  const isEnough = study ? list.studies.some(one => one.name === study && one.is_here) : runs.length > 1;
  id("result").hidden = !isEnough;
  if (!isEnough) { lastResult = ""; return; }
  const seen = list.runs.filter(run => runs.includes(run.name)).map(run => [run.epochs_done, run.status]);
  const isRunning = list.studies.find(one => one.name === study)?.job;
  const key = JSON.stringify([runs, study, seen]);
  if (key === lastResult && !isRunning) return;
  const found = await attempt(panel, () => get("/api/compare", study ? {study} : {run: runs}), "poll");
  if (asked !== ticked()) return; // it is compared again at once
  id("result").hidden = !found;
  if (!found) return;
  lastResult = key;
  id("title").textContent = found.title;
  id("about").textContent = [`${found.num_complete} of ${found.num_runs} runs done`, ...found.notes].join("; ");
  id("sections").replaceChildren();
  for (const section of found.sections) showSection(section);
  showDifferences(found);
  showSame(id("same"), found.same);
}

function showSection(section) {
  const part = element("section", {"aria-label": section.name});
  id("sections").append(part);
  if (section.title) part.append(element("h3", {}, section.title));
  part.append(element("p", {class: "comment"}, section.comment));
  const charts = element("div", {class: "charts"});
  part.append(charts);
  const figure = (title, subtitle) => {
    const place = element("div", {class: "plot"});
    charts.append(element("figure", {}, element("figcaption", {}, element("b", {}, title), element("span", {}, subtitle)), place));
    return place;
  };
  for (const metric of [...new Set(section.contrasts.map(one => one.metric))]) {
    const rows = section.contrasts.filter(one => one.metric === metric), {unit, higher_is_better: isHigher} = rows[0];
    if (rows.every(row => row.mean == null)) continue;
    const margins = [...new Set(rows.filter(row => row.mean != null).map(row => row.margin))];
    const margin = margins.length === 1 ? margins[0] : null; // the band is for all rows
    const place = figure(`Difference in ${metric}`, `mark: mean over the seeds; bar: its 95 % interval${margin == null ? "" : "; shaded: differences that do not matter"}; ${isHigher ? "higher" : "lower"} is better`);
    intervalChart(place, rows, {title: `Difference in ${metric}`, xTitle: `difference (${unit})`, margin});
  }
  for (const [quantity, curves] of Object.entries(section.curves)) {
    const series = section.arms.map((arm, index) => ({name: arm.name, points: curves[index], index})).filter(one => one.points.length);
    if (!series.length) continue;
    const [title, subtitle] = CURVE_TITLES[quantity] ?? [quantity, ""];
    lineChart(figure(title, `${subtitle}; mean over the seeds`), series, {title, ...(quantity.endsWith("accuracy") ? {format: percent, tickFormat: value => `${Math.round(100 * value)} %`} : {})});
  }
  part.append(verdicts(section), means(section));
}

const scrolled = (label, table) => element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": label}, table);
const head = (...titles) => element("thead", {}, element("tr", {}, ...titles.map(title => element("th", {scope: "col"}, title))));

function verdicts(section) {
  const signed = (value, unit) => value == null ? "" : `${value > 0 ? "+" : ""}${+value.toPrecision(3)} ${unit}`;
  const rows = section.contrasts.map(one => element("tr", {},
    element("td", {}, one.label, element("div", {class: "what"}, one.metric)),
    element("td", {}, element("span", {class: `state ${one.verdict}`}, MARKS[one.verdict])),
    element("td", {}, signed(one.mean, one.unit), element("div", {class: "what"}, one.low == null ? "" : `${+one.low.toPrecision(3)} to ${+one.high.toPrecision(3)}`)),
    element("td", {class: "number"}, one.seeds),
    element("td", {}, element("div", {class: "what"}, one.reason ?? ""))));
  return rows.length ? scrolled(`The verdicts of ${section.name}`, element("table", {}, head("Compared", "Verdict", "Difference, 95 % interval", "Seeds", "Why"), element("tbody", {}, ...rows))) : "";
}

function means(section) {
  const metrics = [...new Set(section.arms.flatMap(arm => Object.keys(arm.means)))];
  const rows = section.arms.map(arm => element("tr", {}, element("th", {scope: "row"}, arm.name), element("td", {class: "number"}, `${arm.finished} of ${arm.runs}`),
    ...metrics.map(metric => element("td", {}, arm.means[metric] ?? ""))));
  return scrolled(`The arms of ${section.name}`, element("table", {}, head("Arm", "Finished", ...metrics), element("tbody", {}, ...rows)));
}

function showDifferences({differences, runs}) {
  const keys = Object.keys(differences);
  id("differences-card").hidden = !keys.length;
  const rows = keys.map(key => element("tr", {}, element("th", {scope: "row"}, key), ...differences[key].map(value => element("td", {}, value))));
  id("differences").replaceChildren(head("Key", ...runs), element("tbody", {}, ...rows));
}

function openReport() {
  const study = getState("compare.study"), query = new URLSearchParams();
  if (study) query.set("study", study);
  else getStates("compare.run").forEach(run => query.append("run", run));
  id("frame").replaceChildren(element("iframe", {class: "report", title: "The report", sandbox: "allow-scripts", src: `/report?${query}`}));
}

// ---------------------------------------------------------------- a study

function formValues() {
  const values = statesOf("train.");
  for (const name of ["run", "extend", "epoch", "playback", "name"]) delete values[name];
  for (const name of ["grid", "seeds", "name"]) if (getState(`compare.${name}`)) values[name] = getState(`compare.${name}`);
  return values;
}

async function check(panel) {
  if (!getState("compare.grid")) { showSame(id("study-same"), null); return; }
  const same = await attempt(panel, () => post("/api/compare/check", formValues()));
  showSame(id("study-same"), same);
  if (!same) return;
  id("name").placeholder = same.name;
  id("message").textContent = `${same.num_runs} runs`;
}

async function submit(panel) {
  const started = await attempt(panel, () => post("/api/compare/start", formValues()));
  if (!started) return;
  id("message").textContent = `${started.name} is in the queue.`;
  id("name").value = "";
  setState("compare.name", "");
  setState("compare.run", "");
  setState("compare.study", started.name);
  look();
}
