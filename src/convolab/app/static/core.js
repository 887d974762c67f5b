// What all tabs share: the state in the address, requests, one line for an error, and the box "the same as".

// ---------------------------------------------------------------- the state, which is the address

const state = new URLSearchParams(location.search);
const listeners = [];
let writing = 0;

export const getState = name => state.get(name) ?? "";
export const getStates = name => state.getAll(name);

// Set a value, or a list of values; what is empty is left out of the address.
export function setState(name, value) {
  const values = (Array.isArray(value) ? value : [value]).filter(one => one !== "" && one != null);
  if (values.join("\n") === state.getAll(name).join("\n")) return;
  state.delete(name);
  values.forEach(one => state.append(name, one));
  clearTimeout(writing); // browsers allow a few changes of the address in a second
  writing = setTimeout(writeAddress, 100);
  for (const [prefix, listener] of listeners) if (name.startsWith(prefix)) listener(name);
}

function writeAddress() {
  const text = state.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}
addEventListener("pagehide", writeAddress);

// Call a function with the name of each value that changes and begins with a prefix.
export const onState = (prefix, listener) => listeners.push([prefix, listener]);

// All values whose names begin with a prefix, without it.
export function statesOf(prefix) {
  const values = {};
  for (const [name, value] of state) if (name.startsWith(prefix)) values[name.slice(prefix.length)] = value;
  return values;
}

const valueOf = control => control.type === "checkbox" ? (control.checked ? "1" : "") : control.value;

// Give a control the value of the address, and the address the value of the control from then on.
export function bindControl(control) {
  const name = control.dataset.state;
  if (!("initial" in control.dataset)) {
    control.dataset.initial = valueOf(control);
    const changed = () => setState(name, valueOf(control) === control.dataset.initial ? "" : valueOf(control));
    control.addEventListener("input", changed);
    control.addEventListener("change", changed);
  }
  if (!state.has(name)) return;
  const value = getState(name);
  if (control.type === "checkbox") control.checked = value === "1";
  else control.value = value;
}

export const bindControls = part => part.querySelectorAll("[data-state]").forEach(bindControl);

// ---------------------------------------------------------------- elements

// element("p", {class: "note", onclick: f}, "text", otherElement)
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child != null));
  return made;
}

// A field for each of a network's options, kept in the address under a prefix such as "train.option."
export function showOptionFields(place, prefix, options) {
  for (const name of Object.keys(statesOf(prefix))) if (!options.some(option => option.name === name)) setState(prefix + name, "");
  place.replaceChildren(...options.map(option => {
    const name = prefix + option.name, control = {id: name.replaceAll(".", "-"), "data-state": name};
    const others = option.values.filter(value => value !== option.default);
    const input = option.values.length
      ? element("select", control, ...["", ...others].map(value => element("option", {value}, value || option.default || "none")))
      : element("input", {...control, placeholder: option.default});
    return element("div", {class: "field"}, element("label", {for: control.id}, option.name), input);
  }));
  place.closest("details").hidden = !options.length;
  bindControls(place);
}

export const percent = fraction => fraction == null ? "" : `${(100 * fraction).toFixed(2)} %`;
export const number = value => value == null ? "" : Math.round(value).toLocaleString("en");

export function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// ---------------------------------------------------------------- requests

export class Cancelled extends Error {}

async function request(path, options) {
  let answer, value;
  try {
    answer = await fetch(path, options);
    value = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw new Cancelled();
    throw new Error("the server does not answer: is `convolab app` still running?");
  }
  if (value && value.cancelled) throw new Cancelled();
  if (!answer.ok || value?.error) throw new Error(value?.error || "this did not work");
  return value;
}

export function get(path, values = {}, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) [value].flat().forEach(one => query.append(name, one));
  return request(query.size ? `${path}?${query}` : path, {signal});
}

export const post = (path, values = {}, signal) => request(path, {
  method: "POST", body: JSON.stringify(values), headers: {"Content-Type": "application/json"}, signal,
});

// Keep an image for this session; gives {id, name, width, height}.
export const upload = (file, signal) => request(`/api/uploads?${new URLSearchParams({name: file.name || "image"})}`, {
  method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}, signal,
});

// Do something; an error becomes the line at the top of the panel, success takes it away. What is asked again and again, by itself
// ("poll"), leaves the line about what a person did.
export async function attempt(part, action, author = "person") {
  const line = part.closest("[role=tabpanel]").querySelector(".error");
  const isOthers = () => !line.hidden && author === "poll" && line.dataset.author !== author;
  try {
    const result = await action();
    if (!isOthers()) line.hidden = true;
    return result;
  } catch (error) {
    if (error instanceof Cancelled || isOthers()) return undefined;
    line.textContent = error.message;
    line.dataset.author = author;
    line.hidden = false;
    return undefined;
  }
}

// Call a function once it was not called for a moment.
export function debounce(action, milliseconds = 200) {
  let timer = 0;
  return (...values) => { clearTimeout(timer); timer = setTimeout(() => action(...values), milliseconds); };
}

// Do something again and again while its panel is seen; the action gives the seconds until the next time.
export function poll(panel, action) {
  let timer = 0, isBusy = false, again = false; // again: it was asked for meanwhile
  async function round() {
    clearTimeout(timer);
    if (document.hidden || panel.hidden) return;
    again = isBusy;
    if (isBusy) return;
    isBusy = true;
    let seconds = 5;
    try {
      seconds = await action() ?? 5;
    } finally {
      isBusy = false;
      timer = setTimeout(round, again ? 0 : 1000 * seconds);
    }
  }
  document.addEventListener("visibilitychange", round);
  panel.addEventListener("shown", round);
  round();
  return round;
}

// ---------------------------------------------------------------- the same as a command and as Python

async function copyText(block, button) {
  try {
    await navigator.clipboard.writeText(block.textContent);
    button.textContent = "Copied";
  } catch { // a page of another machine may not write to the clipboard
    getSelection().selectAllChildren(block);
    button.textContent = "Selected: press Ctrl-C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

function sameBlock(title, name) {
  const code = element("code", {class: name});
  const button = element("button", {type: "button", "aria-label": `Copy: ${title}`, onclick: () => copyText(code, button)}, "Copy");
  return element("div", {class: "same-block"},
    element("div", {class: "same-head"}, element("h3", {}, title), button),
    element("pre", {tabindex: 0, role: "region", "aria-label": title}, code));
}

// Show {command, python} in the box; anything else empties it.
export function showSame(box, same) {
  if (!box.firstChild) box.append(sameBlock("The same as a command", "command"), sameBlock("The same as Python", "python"));
  box.hidden = !same;
  if (!same) return;
  box.querySelector(".command").textContent = same.command;
  box.querySelector(".python").textContent = same.python;
}
