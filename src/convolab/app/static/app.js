// The page: tabs, dark or light, large type. Each tab's own module is loaded when it is first shown.
import {bindControls, get, getState, setState} from "./core.js";

const root = document.documentElement;
const tabs = [...document.querySelectorAll("[role=tab]")];
const nameOf = tab => tab.id.slice("tab-".length);
const started = new Set();

async function show(tab, focus = false) {
  for (const other of tabs) {
    const isShown = other === tab;
    other.setAttribute("aria-selected", isShown);
    other.tabIndex = isShown ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !isShown;
  }
  if (focus) tab.focus();
  tab.scrollIntoView({block: "nearest", inline: "nearest"});
  const name = nameOf(tab), panel = document.getElementById(`panel-${name}`);
  document.title = `${tab.textContent} · convolab`;
  setState("tab", tab === tabs[0] ? "" : name);
  if (!started.has(name)) {
    started.add(name);
    bindControls(panel);
    await (await import(`./${name}.js`)).start(panel);
    panel.dataset.ready = "1";
  }
  panel.dispatchEvent(new Event("shown"));
}

const moves = {ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity};
for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", event => {
    const move = moves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const next = Number.isFinite(move) ? (index + move + tabs.length) % tabs.length : move < 0 ? 0 : tabs.length - 1;
    show(tabs[next], true);
  });
}

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
const dark = document.getElementById("dark"), projector = document.getElementById("projector");
function label() {
  dark.setAttribute("aria-pressed", isDark());
  projector.setAttribute("aria-pressed", root.dataset.projector === "1");
}
dark.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  setState("theme", root.dataset.theme);
  label();
});
projector.addEventListener("click", () => {
  if (root.dataset.projector) delete root.dataset.projector;
  else root.dataset.projector = "1";
  setState("projector", root.dataset.projector ?? "");
  label();
});
systemDark.addEventListener("change", label);
label();

// An open page keeps its session, and with it the images that were uploaded.
setInterval(() => get("/api/here").catch(() => {}), 60_000);

show(tabs.find(tab => nameOf(tab) === getState("tab")) ?? tabs[0]);
