// The fields that several tabs have: an image, a network, a class by part of its name; and bars of probabilities.
import {attempt, bindControl, element, get, getState, number, onState, percent, setState, upload} from "./core.js";

// ---------------------------------------------------------------- an image: picked, opened, dropped, pasted, taken

let images = null;
const fields = []; // of all tabs: an upload in one is there in the others

async function fillImages(again = false) {
  if (!images || again) images = get("/api/images/list");
  const {samples, uploads} = await images;
  for (const {select, usual} of fields) {
    const option = (value, name) => element("option", {value}, name);
    const others = samples.filter(name => name !== usual).map(name => option(name, name));
    const own = uploads.map(one => option(one.value, one.name)).reverse();
    select.replaceChildren(option("", usual), ...others, ...(own.length ? [element("optgroup", {label: "Yours"}, ...own)] : []));
    select.dataset.initial = "";
    select.value = "";
    bindControl(select);
  }
}

export async function imageField(panel, tab) {
  const part = document.getElementById(`${tab}-image-field`), select = part.querySelector("select"), file = part.querySelector("input");
  fields.push({select, usual: select.options[0].textContent});
  const keep = blob => blob && attempt(panel, async () => {
    const kept = await upload(blob);
    await fillImages(true);
    select.value = `upload:${kept.id}`;
    setState(`${tab}.image`, select.value);
  });
  const doing = name => part.querySelector(`[data-do=${name}]`);
  doing("file").addEventListener("click", () => file.click());
  file.addEventListener("change", () => { keep(file.files[0]); file.value = ""; });
  const imageOf = transfer => [...transfer?.files ?? []][0];
  panel.addEventListener("dragover", event => { event.preventDefault(); panel.classList.add("drop"); });
  panel.addEventListener("dragleave", event => { if (!panel.contains(event.relatedTarget)) panel.classList.remove("drop"); });
  panel.addEventListener("drop", event => { event.preventDefault(); panel.classList.remove("drop"); keep(imageOf(event.dataTransfer)); });
  document.addEventListener("paste", event => { if (!panel.hidden) keep(imageOf(event.clipboardData)); });
  camera(panel, part, doing, keep);
  await attempt(panel, () => fillImages());
}

function camera(panel, part, doing, keep) {
  const box = part.querySelector(".camera"), video = box.querySelector("video");
  const off = () => {
    video.srcObject?.getTracks().forEach(track => track.stop());
    video.srcObject = null;
    box.hidden = true;
  };
  doing("camera").addEventListener("click", () => attempt(panel, async () => {
    if (!navigator.mediaDevices) throw new Error("this browser gives a page of another machine no camera: open a file instead");
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({video: true});
    } catch {
      throw new Error("there is no camera that this page may use: open a file instead");
    }
    box.hidden = false;
    await video.play();
    doing("take").focus();
  }));
  doing("off").addEventListener("click", off);
  doing("take").addEventListener("click", () => {
    const canvas = element("canvas", {width: video.videoWidth, height: video.videoHeight});
    canvas.getContext("2d").drawImage(video, 0, 0);
    off();
    doing("camera").focus();
    canvas.toBlob(blob => keep(new File([blob], "camera.png", {type: "image/png"})));
  });
}

// ---------------------------------------------------------------- a network

const TIMM = "timm/"; // how the names of timm's networks begin
export const timmChoice = () => element("option", {value: TIMM}, "another one, of timm");

// A select of networks whose choice `timmChoice` opens a field for the name; both write one value of the address.
export function bindNetwork(tab) {
  const byId = name => document.getElementById(`${tab}-${name}`);
  const select = byId("net"), timm = byId("timm"), state = `${tab}.net`, name = getState(state);
  const isTimm = () => select.value === TIMM;
  const changed = () => {
    byId("timm-field").hidden = !isTimm();
    if (isTimm() && !timm.value.trim()) timm.focus();
    else setState(state, isTimm() ? TIMM + timm.value.trim() : select.value);
  };
  select.value = name.startsWith(TIMM) ? TIMM : name;
  if (isTimm()) timm.value = name.slice(TIMM.length);
  byId("timm-field").hidden = !isTimm();
  select.addEventListener("change", changed);
  timm.addEventListener("change", changed);
}

// Calls `changed` with what is known of the network, when it is loaded. One of timm's that the address names may have to be
// downloaded, so it waits for a press of the tab's button: what is returned loads the network if it is not loaded yet.
export async function networkField(panel, tab, changed) {
  const select = document.getElementById(`${tab}-net`), about = document.getElementById(`${tab}-net-about`), state = `${tab}.net`;
  const list = await attempt(panel, () => get("/api/networks/list"));
  if (!list) return () => {};
  const [usual, ...bundled] = list.bundled, option = (value, name = value) => element("option", {value}, name);
  select.replaceChildren(option("", usual), ...bundled.map(name => option(name)),
    ...(list.runs.length ? [element("optgroup", {label: list.left_out ? `Your latest runs; ${number(list.left_out)} older ones are left out` : "Your runs"}, ...list.runs.map(run => option(run.value, run.name)))] : []),
    ...(list.timm ? [timmChoice()] : []));
  bindNetwork(tab);
  let isOpen = false;
  const open = async () => {
    const name = getState(state);
    about.textContent = "loading ...";
    const net = await attempt(panel, () => get("/api/networks/open", {net: name}));
    if (name !== getState(state)) return;
    isOpen = Boolean(net);
    about.textContent = net ? [net.about, net.caution].filter(Boolean).join("; ") : "";
    if (net) changed(net, list);
  };
  onState(state, name => { if (name === state) open(); });
  if (getState(state).startsWith(TIMM)) about.textContent = "its weights may have to be downloaded: press the button below";
  else await open();
  return async () => { if (!isOpen) await open(); };
}

// ---------------------------------------------------------------- a class

// The class that a text means: itself, or the only one of which it is a part; else the text, which the server judges.
export function resolveClass(text, classes) {
  const word = text.trim().toLowerCase();
  const exact = classes.find(name => name.toLowerCase() === word);
  const parts = word ? classes.filter(name => name.toLowerCase().includes(word)) : [];
  return exact ?? (parts.length === 1 ? parts[0] : text.trim());
}

export function fillClasses(tab, classes) {
  document.getElementById(`${tab}-classes`).replaceChildren(...classes.map(name => element("option", {value: name})));
}

// A row for each class: its name, a bar, a number.
export function showClasses(place, top, marked) {
  place.replaceChildren(...top.map(one => {
    const bar = element("span", {class: "bar", "aria-hidden": "true"}, element("span"));
    bar.firstChild.style.width = `${100 * one.probability}%`;
    return element("li", {class: one.class === marked ? "marked" : null},
      element("span", {class: "name"}, one.class), bar, element("span", {class: "number"}, percent(one.probability)));
  }));
}

// A button that is pressed while something runs: gives a signal that its press, or the next call, aborts.
export function cancellable(button) {
  let controller = null;
  button.addEventListener("click", () => controller?.abort());
  return async action => {
    controller?.abort();
    const own = controller = new AbortController();
    button.disabled = false;
    try {
      return await action(own.signal);
    } finally {
      if (controller === own) button.disabled = true;
    }
  };
}
