const page = JSON.parse(document.getElementById("figures").textContent);
const views = new Map(); // by a chart's element

// A column is a list, or its repeated values, or runs of counting numbers.
function decompress(column) {
  if (Array.isArray(column)) return column;
  if (column.repeated) return column.repeated.flatMap(([value, times]) => Array(times).fill(value));
  return column.counting.flatMap(([first, count]) => Array.from({length: count}, (_, step) => first + step));
}

// A table is a list of rows, or its columns by name.
function rows(table) {
  if (Array.isArray(table)) return table;
  const columns = Object.entries(table).map(([name, column]) => [name, decompress(column)]);
  return columns[0][1].map((_, row) => Object.fromEntries(columns.map(([name, values]) => [name, values[row]])));
}

async function draw(element) {
  const {spec, tables} = page.figures[element.dataset.figure];
  const datasets = Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, rows(table)]));
  // `ast`: expressions are interpreted, not compiled, so that the page need not allow eval.
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: page.theme, tooltip: {theme: "page"},
  };
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

// On paper a chart that is as wide as its column is as wide as half a sheet.
addEventListener("beforeprint", () => views.forEach((view, element) => {
  if (page.figures[element.dataset.figure].spec.width === "container") view.width(330).run();
}));
addEventListener("afterprint", () => dispatchEvent(new Event("resize")));

drawAll();
