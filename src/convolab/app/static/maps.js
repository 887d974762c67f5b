// Maps as numbers: their colors, between their cells interpolated or not; and the boxes in a response.

const SEQUENTIAL = ["#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4"]; // as the figures have them
const DIVERGING = ["#003a5d", "#0072b2", "#8ec1df", "#f7f7f7", "#f0a977", "#d55e00", "#6e3000"]; // against, 0, for
const QUANTILE = 0.995, MIN_QUANTILE_CELLS = 1000;
const MAX_BOXES = 50;

// {rows, columns, data} as the server packs it: with values, a Float32Array.
export function unpack({rows, columns, data}) {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  return {rows, columns, values: new Float32Array(bytes.buffer)};
}

function palette(stops) {
  const colors = stops.map(text => [1, 3, 5].map(at => parseInt(text.slice(at, at + 2), 16)));
  return Array.from({length: 256}, (_, index) => {
    const place = index / 255 * (colors.length - 1), low = Math.min(Math.floor(place), colors.length - 2);
    return colors[low].map((value, channel) => value + (place - low) * (colors[low + 1][channel] - value));
  });
}
const palettes = {true: palette(DIVERGING), false: palette(SEQUENTIAL)};

// The number that has the last color: of large maps the 99.5th percentile, so that one pixel does not darken all others.
export function colorLimit({values}, signed) {
  const sizes = signed ? values.map(Math.abs) : Float32Array.from(values);
  sizes.sort();
  const at = sizes.length >= MIN_QUANTILE_CELLS ? Math.floor(QUANTILE * (sizes.length - 1)) : sizes.length - 1;
  return sizes[at] || sizes[sizes.length - 1] || 1;
}

// A map at every pixel of width x height; cell (i, j) lies at start + (i, j) * stride, by default spread over all.
export function resample(map, width, height, {smooth = true, start, stride} = {}) {
  stride ??= [height / map.rows, width / map.columns];
  start ??= [stride[0] / 2 - 0.5, stride[1] / 2 - 0.5];
  const axis = (length, cells, which) => Array.from({length}, (_, at) => {
    const place = Math.min(Math.max((at - start[which]) / stride[which], 0), cells - 1);
    if (!smooth) return [Math.round(place), Math.round(place), 0];
    const low = Math.min(Math.floor(place), Math.max(cells - 2, 0));
    return [low, Math.min(low + 1, cells - 1), place - low];
  });
  const across = axis(width, map.columns, 1), values = new Float32Array(width * height);
  axis(height, map.rows, 0).forEach(([top, bottom, down], y) => {
    const upper = top * map.columns, lower = bottom * map.columns;
    for (let x = 0; x < width; x++) {
      const [left, right, share] = across[x];
      const above = map.values[upper + left] * (1 - share) + map.values[upper + right] * share;
      const below = map.values[lower + left] * (1 - share) + map.values[lower + right] * share;
      values[y * width + x] = above * (1 - down) + below * down;
    }
  });
  return {rows: height, columns: width, values};
}

// Color a canvas of the map's size; 0 is in the middle of the colors of a signed map, and at the lower end of others.
export function colorMap(canvas, map, signed, limit) {
  canvas.width = map.columns;
  canvas.height = map.rows;
  const context = canvas.getContext("2d"), image = context.createImageData(map.columns, map.rows);
  const colors = palettes[Boolean(signed)];
  map.values.forEach((value, index) => {
    const share = signed ? (value / limit + 1) / 2 : value / limit;
    const color = colors[Math.round(255 * Math.min(Math.max(share, 0), 1))];
    image.data.set(color, 4 * index);
    image.data[4 * index + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

// The connected parts of a map that reach threshold times its largest value, the strongest first: as `convolab.locate`.
export function regions({rows, columns, values}, threshold) {
  const top = values.reduce((most, value) => Math.max(most, value), -Infinity);
  if (!(top > 0)) return [];
  const level = threshold * top, seen = new Uint8Array(values.length), stack = new Int32Array(values.length), found = [];
  for (let first = 0; first < values.length; first++) {
    if (seen[first] || values[first] < level) continue;
    const part = {left: columns, top: rows, right: 0, bottom: 0, peak: -Infinity};
    let size = 0;
    stack[size++] = first;
    seen[first] = 1;
    while (size) {
      const at = stack[--size], y = Math.floor(at / columns), x = at - y * columns;
      part.left = Math.min(part.left, x);
      part.right = Math.max(part.right, x + 1);
      part.top = Math.min(part.top, y);
      part.bottom = Math.max(part.bottom, y + 1);
      part.peak = Math.max(part.peak, values[at]);
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, rows - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, columns - 1); u++) {
          const next = v * columns + u;
          if (!seen[next] && values[next] >= level) {
            seen[next] = 1;
            stack[size++] = next;
          }
        }
      }
    }
    found.push(part);
  }
  return found.sort((one, other) => other.peak - one.peak).slice(0, MAX_BOXES);
}

// ---------------------------------------------------------------- images on canvases

// An image that has been loaded, of an address.
export async function loadImage(address) {
  const image = new Image();
  image.src = address;
  await image.decode().catch(() => { throw new Error("the image cannot be shown: choose another"); });
  return image;
}

export function drawImage(canvas, image, width = image.naturalWidth, height = image.naturalHeight) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = width <= image.naturalWidth; // a pixel that is made larger stays one color
  context.drawImage(image, 0, 0, width, height);
}

export const pixelsOf = canvas => canvas.getContext("2d", {willReadFrequently: true}).getImageData(0, 0, canvas.width, canvas.height);

// Draw a box twice, dark below light, so that it is seen on every image; its line is as wide on the screen everywhere.
export function drawBox(canvas, [left, top, right, bottom], color, {dashed = false, width = 3} = {}) {
  const context = canvas.getContext("2d"), unit = canvas.width / (canvas.clientWidth || canvas.width);
  const inset = width * unit / 2;
  for (const [line, style] of [[width + 2, "#000a"], [width, color]]) {
    context.lineWidth = line * unit;
    context.strokeStyle = style;
    context.setLineDash(dashed ? [8 * unit, 5 * unit] : []);
    context.strokeRect(left + inset, top + inset, Math.max(right - left - 2 * inset, unit), Math.max(bottom - top - 2 * inset, unit));
  }
}
