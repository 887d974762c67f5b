"use strict";
const page = JSON.parse(document.getElementById("figures").textContent);
const root = document.documentElement;
const views = new Map(); // by a chart's element

// A column is a list, or its repeated values, or runs of counting numbers.
function decompress(column) {
  if (Array.isArray(column)) return column;
  if (column.repeated) return column.repeated.flatMap(([value, times]) => Array(times).fill(value));
  return column.counting.flatMap(([first, count]) => Array.from({length: count}, (_, step) => first + step));
}

function rows(table) {
  const columns = Object.entries(table).map(([name, column]) => [name, decompress(column)]);
  return columns[0][1].map((_, row) => Object.fromEntries(columns.map(([name, values]) => [name, values[row]])));
}

async function draw(element) {
  const {spec, tables} = page.figures[element.dataset.figure];
  const datasets = Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, rows(table)]));
  const options = {mode: "vega-lite", renderer: "svg", actions: false, config: page.theme, tooltip: {theme: "page"}};
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
    await new Promise(resolve => setTimeout(resolve)); // the page stays responsive in between
  }
  root.dataset.drawn = views.size;
}

// An arm of the legend that is hovered over, or selected by a click, stands out on all charts of its card.
for (const legend of document.querySelectorAll(".legend")) {
  const buttons = [...legend.querySelectorAll("button")];
  const charts = legend.closest(".card").querySelectorAll("[data-by-arm]");
  const selected = () => buttons.find(button => button.getAttribute("aria-pressed") === "true")?.dataset.arm ?? "";
  const show = arm => charts.forEach(chart => views.get(chart)?.signal("focus", arm).runAsync());
  for (const button of buttons) {
    button.addEventListener("pointerenter", () => show(button.dataset.arm));
    button.addEventListener("pointerleave", () => show(selected()));
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      buttons.forEach(other => other.setAttribute("aria-pressed", "false"));
      button.setAttribute("aria-pressed", String(!pressed));
      show(selected());
    });
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
dark.addEventListener("change", label);
theme.hidden = false;
label();

// On paper everything is open, and a chart is as wide as half a sheet.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  views.forEach(view => view.width(330).run());
});
addEventListener("afterprint", () => dispatchEvent(new Event("resize")));

drawAll();
