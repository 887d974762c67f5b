"use strict";
const page = JSON.parse(document.getElementById("figures").textContent);
const root = document.documentElement;
const views = new Map(); // of a chart's element

// A column is a list, or what repeats in it, or what counts up in it.
function unpacked(column) {
  if (Array.isArray(column)) return column;
  if (column.same) return column.same.flatMap(([value, times]) => Array(times).fill(value));
  return column.up.flatMap(([first, count]) => Array.from({length: count}, (_, step) => first + step));
}

function rows(table) {
  const columns = Object.entries(table).map(([name, column]) => [name, unpacked(column)]);
  return columns[0][1].map((_, row) => Object.fromEntries(columns.map(([name, values]) => [name, values[row]])));
}

async function draw(element) {
  const {spec, tables} = page.figures[element.dataset.figure];
  const datasets = Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, rows(table)]));
  const options = {mode: "vega-lite", renderer: "svg", actions: false, config: page.look, tooltip: {theme: "page"}};
  const {view} = await vegaEmbed(element, {...spec, datasets}, options);
  views.set(element, view);
  element.style.minHeight = "";
}

async function drawAll() {
  for (const element of document.querySelectorAll("[data-figure]")) {
    try {
      await draw(element);
    } catch (error) {
      element.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(error);
    }
    await new Promise(resolve => setTimeout(resolve)); // the page stays awake in between
  }
  root.dataset.drawn = views.size;
}

// An arm of the legend that is pointed at, or chosen by a click, stands out on all charts of its card.
for (const legend of document.querySelectorAll(".legend")) {
  const buttons = [...legend.querySelectorAll("button")];
  const charts = legend.closest(".card").querySelectorAll("[data-by-arm]");
  const chosen = () => buttons.find(button => button.getAttribute("aria-pressed") === "true")?.dataset.arm ?? "";
  const show = arm => charts.forEach(chart => views.get(chart)?.signal("focus", arm).runAsync());
  for (const button of buttons) {
    button.addEventListener("pointerenter", () => show(button.dataset.arm));
    button.addEventListener("pointerleave", () => show(chosen()));
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      buttons.forEach(other => other.setAttribute("aria-pressed", "false"));
      button.setAttribute("aria-pressed", String(!pressed));
      show(chosen());
    });
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
dark.addEventListener("change", name);
theme.hidden = false;
name();

// On paper everything is open, and a chart is as wide as half a sheet.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  views.forEach(view => view.width(330).run());
});
addEventListener("afterprint", () => dispatchEvent(new Event("resize")));

drawAll();
