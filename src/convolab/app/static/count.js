// The tab Count: the form, the totals, the chosen layer, the table, and the layers of question 1(c).
import {attempt, bindControl, debounce, element, get, getState, number, onState, percent, post, setState, showOptionFields, showSame, statesOf} from "./core.js";
import {drawField, drawLayers} from "./layers.js";

const id = name => document.getElementById(`count-${name}`);
const FAMILIES = ["convolution", "linear", "norm", "pooling", "activation", "product", "other"];
const LOCAL = ["image", "layer", "at", "open", "n", "k", "m"]; // of the address: what needs no new summary
let offer = null, network = null, at = null, asked = 0; // how often a network was asked for

export async function start(panel) {
  id("form").addEventListener("submit", event => event.preventDefault());
  offer = await attempt(panel, () => get("/api/count/offer"));
  if (offer) {
    const names = [...offer.built.map(one => one.name), ...offer.bundled, ...offer.runs];
    fillNames(names);
    if (offer.left_out) id("net-about").append(`; of your runs the latest are offered, ${number(offer.left_out)} older ones are left out`);
    id("net").addEventListener("input", debounce(async () => {
      const part = id("net").value;
      fillNames(/^(timm|torchvision)\//.test(part) ? await get("/api/count/names", {part}).catch(() => names) : names);
    }));
    id("image").replaceChildren(...offer.images.map(name => element("option", {}, name)));
    id("image").dataset.initial = offer.images[0];
    bindControl(id("image"));
    showOptions();
  }
  onState("count.", name => {
    const key = name.slice("count.".length);
    if (key === "net") showOptions();
    if (["n", "k", "m"].includes(key)) showCourse(panel);
    else if (["image", "layer"].includes(key)) { if (network) showLayer(chosen()); }
    else if (key === "open") draw();
    else if (key !== "at") ask(panel);
  });
  onState("projector", draw);
  new ResizeObserver(draw).observe(id("drawing"));
  ask(panel);
  showCourse(panel);
}

const fillNames = names => id("names").replaceChildren(...names.map(name => element("option", {value: name})));

function showOptions() {
  const options = offer.built.find(one => one.name === id("net").value)?.options ?? [];
  showOptionFields(id("options"), "count.option.", options);
  id("input").placeholder = offer.built.some(one => one.name === id("net").value) ? "3x32x32" : "the network's own";
}

const ask = debounce(async panel => {
  const own = ++asked;
  const values = Object.fromEntries(Object.entries(statesOf("count.")).filter(([name]) => !LOCAL.includes(name)));
  id("totals").textContent = "Counting …";
  const found = await attempt(panel, () => post("/api/count", values));
  if (own !== asked) return;
  showSame(id("same"), found);
  network = found;
  if (!found) return clear();
  const [row, column] = (getState("count.at") || "0.5,0.5").split(",").map(part => Number(part) || 0);
  at = found.input.length === 3 ? [row * found.input[1], column * found.input[2]] : null;
  const checked = found.mismatches.length ? `they differ: ${found.mismatches.join("; ")}` : `count and closed form agree in all ${found.checked} layers that have one`;
  id("title").textContent = `The layers of ${found.network}`;
  id("totals").textContent = `${number(found.parameters)} parameters, ${number(found.macs)} multiply-adds for ${found.input.join(" x ")}; ${checked}.`;
  id("notes").replaceChildren(...found.notes.map(note => element("p", {class: "note"}, note)));
  id("stages-note").hidden = !found.stages.length;
  const used = new Set(found.layers.map(layer => layer.family));
  id("legend").replaceChildren(...FAMILIES.filter(family => used.has(family)).map(family => element("li", {}, element("span", {class: `family is-${family}`}), family)));
  showTable();
  draw();
  showLayer(chosen());
}, 150);

// Nothing of a network stays beside the error of another one.
function clear() {
  id("title").textContent = "Its layers";
  id("field-title").textContent = "Receptive field";
  for (const name of ["totals", "drawing", "legend", "layer-name", "layer", "field-about", "field", "notes"]) id(name).replaceChildren();
  id("table").tBodies[0].replaceChildren();
  id("stages-note").hidden = true;
}

// ---------------------------------------------------------------- layers

const chosen = () => {
  const index = Number(getState("count.layer") || -1);
  return index >= 0 && index < network.layers.length ? index : Math.max(0, network.layers.findIndex(layer => layer.mac_formula));
};
const openStages = () => new Set(getState("count.open").split(",").filter(Boolean).map(Number));

function draw() {
  if (!network) return;
  const place = id("drawing"), focused = document.activeElement?.closest?.("[data-box]")?.dataset.box, left = place.scrollLeft;
  drawLayers(place, network, openStages(), {chosen, look, toggle: stage => {
    const open = openStages();
    if (!open.delete(stage)) open.add(stage);
    setState("count.open", [...open].sort((a, b) => a - b).join(","));
  }});
  place.scrollLeft = left;
  if (focused) place.querySelector(`[data-box="${focused}"]`)?.focus({preventScroll: true});
}

// Show a layer, or the whole stage that ends with it.
function look(index, isChosen, stage = null) {
  if (isChosen) setState("count.layer", String(index));
  showLayer(index, stage);
  const row = id("table").tBodies[0].rows[index], view = id("table").parentElement;
  if (isChosen && !row.contains(document.activeElement)) view.scrollTop = row.offsetTop - view.offsetTop - view.clientHeight / 2;
}

function showTable() {
  id("table").tBodies[0].replaceChildren(...network.layers.map((layer, index) => {
    const button = element("button", {type: "button", class: "name", onclick: () => look(index, true), onfocus: () => look(index, true)}, layer.name || network.network);
    const row = element("tr", {class: `is-${layer.family}`, onpointermove: () => showLayer(index)},
      element("td", {}, button), element("td", {}, element("span", {class: "family"}), layer.kind), element("td", {class: "number"}, layer.output.join(" x ")),
      element("td", {class: "number"}, number(layer.parameters)), element("td", {class: "number"}, number(layer.macs)),
      element("td", {class: "number"}, layer.macs ? percent(layer.share) : ""), element("td", {class: "number"}, fieldWords(layer)));
    return row;
  }));
}

function fieldWords({field}) {
  if (!field) return "";
  const [first, ...others] = field.size, isSquare = others.every(size => size === first);
  return `${field.measured ? "~" : ""}${isSquare ? first : field.size.join(" x ")}${field.is_global.some(Boolean) ? "*" : ""}`;
}

function showLayer(index, stage = null) {
  if (!network) return;
  const layer = stage ?? network.layers[index];
  [...id("table").tBodies[0].rows].forEach((row, at) => row.setAttribute("aria-current", at === index));
  for (const box of id("drawing").querySelectorAll("[data-index]")) box.setAttribute("aria-selected", Number(box.dataset.index) === index && !box.classList.contains("stage-box"));
  id("layer-name").textContent = layer.name || network.network;
  const equation = (formula, value) => formula && formula !== String(value) ? `${formula} = ${number(value)}` : number(value);
  const entries = [
    ["Kind", layer.kind], ["Output", layer.output.join(" x ")], ["Parameters", equation(layer.parameter_formula, layer.parameters)],
    ["Multiply-adds", layer.macs ? `${equation(layer.mac_formula, layer.macs)}, ${percent(layer.share)} of all` : "0: only products of weights or maps count"],
    ["Receptive field", layer.field ? `${fieldWords(layer)} pixels${layer.field.is_global.some(Boolean) ? "; every cell depends on the whole image" : ""}` : layer.field_unknown ?? "none: it does not depend on the input"],
    ["Stride", layer.field?.stride.some(step => step != null) ? `${layer.field.stride[0]} pixels from one cell to the next` : ""],
  ];
  id("layer").replaceChildren(...entries.filter(([, text]) => text).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
  showField(layer);
}

function showField(layer) {
  const {input} = network, canDraw = at && layer.field?.size.length === 2;
  id("field").hidden = !canDraw;
  id("field-title").textContent = canDraw ? "Receptive field: point at the image" : "Receptive field";
  id("field-about").textContent = canDraw ? "" : "no image to draw it on";
  if (!canDraw) return;
  const url = `/api/count/image?${new URLSearchParams({name: id("image").value, height: input[1], width: input[2]})}`;
  drawField(id("field"), input, url, layer, at, (point, words) => {
    at = point;
    const [row, column] = point.map((value, axis) => (value / input[axis + 1]).toFixed(3));
    setState("count.at", row === "0.500" && column === "0.500" ? "" : `${row},${column}`);
    id("field-about").textContent = words;
  });
}

// ---------------------------------------------------------------- question 1(c)

const sizes = () => ({samples: id("n").value, kernel_size: id("k").value, maps: id("m").value});

function showCourse(panel) {
  for (const name of ["n", "k", "m"]) id(`${name}-value`).textContent = id(name).value;
  askCourse(panel);
}

const askCourse = debounce(async panel => {
  const {samples: n, kernel_size: k, maps: m} = sizes();
  const found = await attempt(panel, () => get("/api/count/course", sizes()));
  showSame(id("course-same"), found);
  id("course").tBodies[0].replaceChildren();
  id("ratio").textContent = "";
  if (!found) return;
  const {f, g} = found.layers, rows = [
    ["f", "linear", found.expressions[0], f, ["n · m·n", `${n} · ${m}·${n}`], ["n · m·n", `${n} · ${m}·${n}`]],
    ["g", "convolution", found.expressions[1], g, ["m·k", `${m}·${k}`], ["m·k · n", `${m}·${k} · ${n}`]],
  ];
  const cell = (family, [symbols, numbers], value, most) => {
    const bar = element("span", {class: `count-bar is-${family}`});
    bar.style.setProperty("--share", `${100 * Math.log10(1 + value) / Math.log10(1 + most)}%`);
    return element("td", {}, `${symbols} = ${numbers} = `, element("b", {}, number(value)), bar);
  };
  id("course").tBodies[0].replaceChildren(...rows.map(([name, family, text, cost, parameters, macs]) => element("tr", {},
    element("th", {scope: "row"}, name), element("td", {}, element("code", {}, text)), element("td", {class: "number"}, number(cost.outputs)),
    cell(family, parameters, cost.parameters, f.parameters), cell(family, macs, cost.macs, f.macs))));
  const times = value => value.toLocaleString("en", {maximumFractionDigits: 1});
  id("ratio").textContent = `f has ${times(f.parameters / g.parameters)} times the parameters (n²/k) and ${times(f.macs / g.macs)} times the multiply-adds (n/k). The bars are on a logarithmic scale.`;
}, 100);
