// Small charts as SVG: lines over epochs with a cursor for mouse and keyboard, and intervals beside a line at zero.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 4", "2 3", "10 4 2 4"];
export const NUM_COLORS = 7;
export const colorOf = index => `var(--series-${index % NUM_COLORS})`;
export const dashOf = index => DASHES[index % DASHES.length]; // with 7 colors, 28 curves differ

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Round numbers in an interval, about as many as asked for.
function stepOf(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map(factor => factor * power).find(value => value >= rough * (1 - 1e-9));
}

export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const step = stepOf(low, high, count);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({length: last - first + 1}, (_, index) => +((first + index) * step).toPrecision(12));
}

// Ticks of which the first and the last hold the interval between them, so that an axis can end at both.
function enclosingTicks(low, high, count) {
  const step = stepOf(low, high, count), first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({length: last - first + 1}, (_, index) => +((first + index) * step).toPrecision(12));
}

// The smallest and the largest of numbers, widened to `low` and `high`: as arguments of Math.min thousands would be too many.
const extent = (values, low = Infinity, high = -Infinity) => values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [low, high]);

const tidy = value => Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(+value.toPrecision(4));

// Draw again whenever the place has another width, or the type another size.
const drawn = new Map();
const resized = new ResizeObserver(entries => entries.forEach(entry => drawn.get(entry.target)?.()));

function keepDrawn(place, draw) {
  drawn.set(place, draw);
  resized.observe(place);
  draw();
}

const fontSize = () => parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.78;
const widthOf = place => Math.max(200, place.clientWidth || 400); // pixels, also while the page makes room for it
const longest = (values, format) => 0.62 * Math.max(...values.map(value => format(value).length)); // in font sizes

// series: [{name, points: [[x, y], ...], index}]; y may be null. options: title, xTitle, format, yDomain, xDomain.
export function lineChart(place, series, options) {
  const {title, xTitle = "epoch", format = tidy, tickFormat = format, xDomain, yDomain} = options;
  keepDrawn(place, () => {
    const font = fontSize(), width = widthOf(place), height = Math.max(180, Math.min(300, width * 0.55)) + font;
    const points = series.map(one => one.points.filter(([, y]) => y != null));
    const xs = points.flat().map(([x]) => x), ys = points.flat().map(([, y]) => y);
    const [xLow, xHigh] = xDomain ?? extent(xs, 1, 2);
    let [yLow, yHigh] = yDomain ?? extent(ys);
    if (!ys.length) [yLow, yHigh] = yDomain ?? [0, 1];
    if (yLow === yHigh) [yLow, yHigh] = [yLow - 0.5, yHigh + 0.5];
    const yTicks = enclosingTicks(yLow, yHigh, 5), left = 12 + font * longest(yTicks, tickFormat);
    [yLow, yHigh] = [yTicks[0], yTicks.at(-1)];
    const box = {left, right: width - 12 - font, top: 8, bottom: height - 2.9 * font};
    const x = value => box.left + (value - xLow) / (xHigh - xLow || 1) * (box.right - box.left);
    const y = value => box.bottom - (value - yLow) / (yHigh - yLow) * (box.bottom - box.top);
    const chart = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: 0, class: "line-chart", "font-size": font,
      "aria-label": `${title}: ${series.length} ${series.length === 1 ? "line" : "lines"}. Arrow keys read the values.`,
    });
    for (const tick of yTicks) {
      chart.append(svg("line", {x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), class: "grid"}));
      const text = svg("text", {x: box.left - 6, y: y(tick) + font / 3, "text-anchor": "end", class: "tick-label"});
      text.textContent = tickFormat(tick);
      chart.append(text);
    }
    const wholeTicks = ticks(xLow, xHigh, Math.max(2, width / (font * 6))).filter(Number.isInteger);
    for (const tick of wholeTicks) {
      const text = svg("text", {x: x(tick), y: box.bottom + 1.5 * font, "text-anchor": "middle", class: "tick-label"});
      text.textContent = tick;
      chart.append(text);
    }
    const xName = svg("text", {x: (box.left + box.right) / 2, y: height - 0.3 * font, "text-anchor": "middle", class: "axis"});
    xName.textContent = xTitle;
    chart.append(xName);
    series.forEach((one, index) => {
      const line = points[index].map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`);
      const number = one.index ?? index;
      chart.append(svg("polyline", {points: line.join(" "), class: "curve", stroke: colorOf(number), "stroke-dasharray": dashOf(number)}));
      if (line.length === 1) {
        const [cx, cy] = line[0].split(",");
        chart.append(svg("circle", {cx, cy, r: 3.5, fill: colorOf(number)}));
      }
    });
    const cursor = svg("line", {y1: box.top, y2: box.bottom, class: "cursor", visibility: "hidden"});
    chart.append(cursor);
    const legend = document.createElement("ul");
    legend.className = "legend";
    legend.setAttribute("aria-live", "polite");
    const all = [...new Set(xs)].sort((a, b) => a - b);
    let at = null;
    function read() {
      const value = at == null ? null : all[at];
      cursor.setAttribute("visibility", value == null ? "hidden" : "visible");
      if (value != null) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(value));
      legend.replaceChildren(...series.map((one, index) => {
        const item = document.createElement("li"), number = one.index ?? index;
        const sample = svg("svg", {width: 26, height: 10, "aria-hidden": "true"},
          svg("line", {x1: 0, x2: 26, y1: 5, y2: 5, stroke: colorOf(number), "stroke-width": 3, "stroke-dasharray": dashOf(number)}));
        const seen = points[index].find(([px]) => px === value) ?? (value == null ? points[index].at(-1) : undefined);
        item.append(sample, ` ${one.name}${seen ? `: ${format(seen[1])}` : ""}${value != null && index === 0 ? ` (${xTitle} ${value})` : ""}`);
        return item;
      }));
    }
    function move(to) { at = all.length ? Math.max(0, Math.min(all.length - 1, to)) : null; read(); }
    chart.addEventListener("pointermove", event => {
      const wanted = xLow + ((event.clientX - chart.getBoundingClientRect().left) * width / chart.clientWidth - box.left) / (box.right - box.left) * (xHigh - xLow);
      move(all.reduce((best, value, index) => Math.abs(value - wanted) < Math.abs(all[best] - wanted) ? index : best, 0));
    });
    chart.addEventListener("pointerleave", () => { at = null; read(); });
    chart.addEventListener("blur", () => { at = null; read(); });
    chart.addEventListener("keydown", event => {
      const ends = {Home: 0, End: all.length - 1}, steps = {ArrowRight: 1, ArrowLeft: -1};
      if (!(event.key in ends) && !(event.key in steps)) return;
      event.preventDefault();
      move(ends[event.key] ?? (at == null ? all.length - 1 : at + steps[event.key]));
    });
    read();
    place.replaceChildren(chart, legend);
  });
}

// rows: [{label, mean, low, high, verdict, note}]; a forest plot, with a line at zero and perhaps a band of what does not matter.
export function intervalChart(place, rows, options) {
  const {title, format = tidy, xTitle, margin = null} = options;
  keepDrawn(place, () => {
    const font = fontSize(), width = widthOf(place), rowHeight = 3.1 * font;
    const height = rows.length * rowHeight + 3.4 * font;
    const ends = rows.flatMap(row => [row.low, row.high, row.mean]).filter(value => value != null);
    let [low, high] = extent(ends, -(margin ?? 0), margin ?? 0);
    if (low === high) [low, high] = [-1, 1];
    const side = found => Math.max(10, 0.5 * font * longest(found, format)); // the outer halves of the first and last label
    const areApart = found => (width - 2 * side(found)) / (found.length - 1) > font * (longest(found, format) + 0.6);
    let count = 8, found = enclosingTicks(low, high, count);
    while (count > 2 && !areApart(found)) found = enclosingTicks(low, high, --count);
    [low, high] = [found[0], found.at(-1)];
    const left = side(found), bottom = rows.length * rowHeight + 0.4 * font;
    const x = value => left + (value - low) / (high - low) * (width - 2 * left);
    const words = rows.map(row => `${row.label}: ${row.mean == null ? "no difference measured" : format(row.mean)}, ${row.verdict}`);
    const chart = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "font-size": font, "aria-label": `${title}. ${words.join(". ")}`});
    if (margin != null) chart.append(svg("rect", {x: x(-margin), width: x(margin) - x(-margin), y: 0, height: bottom, class: "band"}));
    for (const tick of found) {
      chart.append(svg("line", {x1: x(tick), x2: x(tick), y1: 0, y2: bottom, class: tick === 0 ? "zero" : "grid"}));
      const text = svg("text", {x: x(tick), y: bottom + 1.3 * font, "text-anchor": "middle", class: "tick-label"});
      text.textContent = format(tick);
      chart.append(text);
    }
    rows.forEach((row, index) => {
      const top = index * rowHeight + 1.3 * font, y = top + 1.0 * font;
      const text = svg("text", {x: 10, y: top, class: "label"});
      const room = Math.floor((width - 20) / (font * 0.55));
      const whole = `${row.label}: ${row.verdict}`;
      text.textContent = whole.length > room ? `${whole.slice(0, room - 1)}…` : whole;
      chart.append(text);
      if (row.mean == null) return;
      if (row.low != null) chart.append(svg("line", {x1: x(row.low), x2: x(row.high), y1: y, y2: y, class: `interval ${row.verdict}`}));
      chart.append(svg("circle", {cx: x(row.mean), cy: y, r: 0.38 * font, class: `mean ${row.verdict}`}));
    });
    const name = svg("text", {x: width / 2, y: height - 0.4 * font, "text-anchor": "middle", class: "axis"});
    name.textContent = xTitle;
    chart.append(name);
    place.replaceChildren(chart);
  });
}
