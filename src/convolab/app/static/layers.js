// The drawings of the tab Count: a network's layers as boxes, and a receptive field on a sample image.
import {svg} from "./chart.js";

const fontSize = () => 0.76 * parseFloat(getComputedStyle(document.documentElement).fontSize);
const NAME_LENGTH = 20;

// The channels of an output and the pixels of its side, whichever of them come first.
export function mapSize(output) {
  if (output.length === 3 && output[0] === output[1] && output[1] !== output[2]) return {channels: output[2], side: output[0]};
  if (output.length >= 2) return {channels: output[0], side: Math.max(...output.slice(1))};
  return {channels: output[0] ?? 1, side: 1};
}

// The boxes of a drawing: layers, or stages that are closed; the layers of an open one follow its own box.
export function boxesOf({layers, stages}, open) {
  if (!stages.length) return layers.map((layer, index) => ({index, layer, name: layer.name.split(".").slice(-2).join(".")}));
  return stages.flatMap((stage, number) => {
    const count = stage.to - stage.from, {family, parameters, macs, share} = stage;
    const whole = {...layers[stage.to - 1], family, parameters, macs, share, name: stage.name, kind: `${count} layers`, parameter_formula: "", mac_formula: ""};
    const last = {index: stage.to - 1, layer: count === 1 ? layers[stage.from] : whole, name: stage.name, stage: number, count};
    if (last.count === 1) return [{...last, stage: null}];
    if (!open.has(number)) return [last];
    const inside = layers.slice(stage.from, stage.to).map((layer, offset) => ({index: stage.from + offset, layer, name: layer.name.slice(stage.name.length + 1) || layer.kind}));
    return [{...last, isOpen: true}, ...inside];
  });
}

// act: {look(index, is_chosen, stage), toggle(stage), chosen()}
export function drawLayers(place, network, open, act) {
  const font = fontSize(), boxes = boxesOf(network, open), sizes = boxes.map(box => mapSize(box.layer.output));
  const most = {channels: Math.max(2, ...sizes.map(size => size.channels)), side: Math.max(2, ...sizes.map(size => size.side))};
  const part = (value, all) => Math.log2(value + 1) / Math.log2(all + 1);
  const widths = sizes.map(size => (1.2 + 3.2 * part(size.channels, most.channels)) * font);
  const highest = 9 * font, gap = 0.45 * font, bottom = highest + 0.6 * font, height = bottom + 7.5 * font;
  const before = 2.5 * font, after = font, room = place.clientWidth - 8 - before - after - gap * boxes.length;
  const squeeze = Math.max(0.5, Math.min(1, room / widths.reduce((sum, width) => sum + width, 0))); // a row that is a little too long fits
  let left = before;
  const drawn = boxes.map((box, number) => {
    const w = squeeze * widths[number], h = Math.max(0.5 * font, highest * part(sizes[number].side, most.side));
    const name = box.name.length > NAME_LENGTH ? `…${box.name.slice(1 - NAME_LENGTH)}` : box.name;
    const label = svg("text", {x: left + w / 2, y: bottom + font, "font-size": font, "text-anchor": "end", transform: `rotate(-45 ${left + w / 2} ${bottom + font})`});
    label.textContent = box.stage != null ? `${box.isOpen ? "− " : "+ "}${name}` : name;
    const words = `${box.layer.name}, ${box.layer.kind}, output ${box.layer.output.join(" x ")}`;
    const made = svg("g", {
      class: `box is-${box.layer.family}${box.stage != null ? " stage-box" : ""}`, role: "option", tabindex: -1, "data-box": number, "data-index": box.index,
      "aria-selected": String(box.index === act.chosen() && box.stage == null), "aria-label": box.stage != null ? `${box.name}, ${box.count} layers, ${box.isOpen ? "open" : "closed"}` : words,
    }, svg("rect", {x: left - gap / 2, y: 1, width: w + gap, height: height - 2, rx: 4, class: "back"}), svg("rect", {x: left, y: bottom - h, width: w, height: h, rx: 3, class: "front"}), label);
    left += w + gap;
    made.addEventListener("pointermove", () => act.look(box.index, false, box.stage == null ? null : box.layer));
    made.addEventListener("focus", () => act.look(box.index, true, box.stage == null ? null : box.layer));
    made.addEventListener("click", () => { made.focus(); if (box.stage != null) act.toggle(box.stage); });
    made.addEventListener("keydown", event => {
      const to = {ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: boxes.length - 1}[event.key];
      if (to !== undefined) place.querySelector(`[data-box="${Math.max(0, Math.min(boxes.length - 1, to))}"]`).focus();
      else if ((event.key === "Enter" || event.key === " ") && box.stage != null) act.toggle(box.stage);
      else return;
      event.preventDefault();
    });
    return made;
  });
  const width = left + after;
  const drawing = svg("svg", {class: "layers", width, height, viewBox: `0 0 ${width} ${height}`, role: "listbox", "aria-label": "The layers; arrow keys move, Enter opens a block", "aria-orientation": "horizontal"}, ...drawn);
  place.replaceChildren(drawing);
  (drawing.querySelector(`[data-index="${act.chosen()}"]`) ?? drawn[0])?.setAttribute("tabindex", 0);
}

// The pixels that a cell depends on, an interval for each axis; where the axes have one cell, the whole.
export function fieldOf(field, output, at) {
  return field.size.map((size, axis) => {
    const cells = field.stride[axis] == null ? 1 : Math.max(1, output.at(axis - field.size.length) ?? 1), step = field.stride[axis] ?? 0;
    const start = field.start[axis] ?? 0, wanted = step ? Math.round((at[axis] - field.center[axis]) / step) : 0;
    const index = Math.max(0, Math.min(cells - 1, wanted));
    return {cell: index, low: start + index * step, size, middle: (field.center[axis] ?? 0) + index * step};
  });
}

// input: [channels, height, width]; at: a point of the image, [row, column] in pixels. moved(point, words) is called now and
// whenever the person has moved the point.
export function drawField(place, input, url, layer, at, moved) {
  const [height, width] = input.slice(1), margin = 0.12 * Math.max(height, width), unit = Math.max(height, width) / 100;
  const bounds = {x: -margin, y: -margin, width: width + 2 * margin, height: height + 2 * margin};
  const overlay = svg("g");
  const drawing = svg("svg", {class: "field-view", viewBox: Object.values(bounds).join(" "), role: "img", tabindex: 0},
    svg("rect", {...bounds, class: "padding"}), svg("image", {x: 0, y: 0, width, height, preserveAspectRatio: "none", href: url}), overlay);
  let point = at;
  function paint() {
    const [rows, columns] = fieldOf(layer.field, layer.output, point), clip = (low, size, from, length) => [Math.max(from, low), Math.min(from + length, low + size)];
    const [top, bottom] = clip(rows.low, rows.size, bounds.y, bounds.height), [left, right] = clip(columns.low, columns.size, bounds.x, bounds.width);
    const outside = `M${bounds.x} ${bounds.y}h${bounds.width}v${bounds.height}h${-bounds.width}z M${left} ${top}V${bottom}H${right}V${top}z`;
    const frame = (kind, stroke) => svg("rect", {x: left, y: top, width: right - left, height: bottom - top, class: kind, "stroke-width": stroke * unit});
    overlay.replaceChildren(svg("path", {d: outside, class: "outside", "fill-rule": "evenodd"}), frame("frame-edge", 1.6), frame("frame", 0.8),
      svg("circle", {cx: columns.middle + 0.5, cy: rows.middle + 0.5, r: 1.3 * unit, class: "middle", "stroke-width": 0.4 * unit}));
    const words = `cell (${rows.cell}, ${columns.cell}) depends on rows ${rows.low} to ${rows.low + rows.size - 1} and columns ${columns.low} to ${columns.low + columns.size - 1}`;
    drawing.setAttribute("aria-label", `Receptive field of ${layer.name}: ${words}. Arrow keys move to the next cell.`);
    moved(point, words);
    return [rows, columns];
  }
  let cell = paint();
  function move(row, column) {
    point = [Math.max(0, Math.min(height - 1, row)), Math.max(0, Math.min(width - 1, column))];
    cell = paint();
  }
  drawing.addEventListener("pointermove", event => {
    const under = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    move(under.y - 0.5, under.x - 0.5);
  });
  drawing.addEventListener("keydown", event => {
    const by = {ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]}[event.key];
    if (!by) return;
    event.preventDefault();
    move(...cell.map((axis, index) => axis.middle + by[index] * (layer.field.stride[index] ?? 1)));
  });
  place.replaceChildren(drawing);
}
