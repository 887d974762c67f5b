// The arithmetic of the tab Slide: what theory/sliding.py computes, in the browser. A test compares both.

export const MIN_SAMPLES = 4, MAX_SAMPLES = 12;
const SAMPLE = /^(?:[+-]?(?:\d{1,9}(?:\.\d{0,17})?|\.\d{1,17})|[+-]?\d{1,9}\/\d{1,9})$/;
const ROUNDING = 1e-12;

// The numbers of a signal as a person types it, with fractions such as 1/3; null if one is none.
export function parseSamples(text) {
  const parts = text.split(",").map(part => part.trim());
  if (parts.length < MIN_SAMPLES || parts.length > MAX_SAMPLES || !parts.every(part => SAMPLE.test(part))) return null;
  const samples = parts.map(part => {
    const [numerator, denominator = "1"] = part.split("/");
    return Number(numerator) / Number(denominator);
  });
  return samples.every(Number.isFinite) ? samples : null;
}

export const sampleTexts = text => text.split(",").map(part => part.trim());

// The index in y that sample i meets at place k; null where it is a zero of the padding.
export function partner(i, k, n, padding) {
  if (padding === "circular") return (i + k) % n;
  return i + k < n ? i + k : null;
}

const indices = count => Array.from({length: count}, (_, index) => index);

// The places at which z has a value: every stride-th k.
export const places = (n, stride) => indices(Math.ceil(n / stride)).map(cell => cell * stride);

export function products(x, y, k, padding) {
  return x.map((value, i) => {
    const j = partner(i, k, x.length, padding);
    return j === null ? 0 : value * y[j];
  });
}

const sum = values => values.reduce((total, value) => total + value, 0);

export const correlate = (x, y, {padding, stride}) => places(x.length, stride).map(k => sum(products(x, y, k, padding)));

// dz[k]/dx[i] as the index of the sample of y that it is; null: it is 0.
export const jacobianX = (n, {padding, stride}) => places(n, stride).map(k => indices(n).map(i => partner(i, k, n, padding)));

// dz[k]/dy[j] as the index of the sample of x that it is; null: it is 0.
export const jacobianY = (n, {padding, stride}) => places(n, stride).map(k => indices(n).map(j => {
  if (padding === "circular") return (j - k + n) % n;
  return j >= k ? j - k : null;
}));

// Circular: what falls off at one end comes in at the other.
export const roll = (values, by) => values.map((_, index) => values[(((index - by) % values.length) + values.length) % values.length]);

// What a shift of x to the right does to z: z of the shifted x, z shifted to the left, and how far they differ.
export function measureShift(x, y, shift, {padding, stride}) {
  const z = correlate(x, y, {padding, stride}), moved = correlate(roll(x, shift), y, {padding, stride});
  const tries = [...new Set([Math.floor(shift / stride), Math.ceil(shift / stride)])].map(cells => {
    const expected = roll(z, -cells);
    const residual = moved.map((value, index) => value - expected[index]);
    return {cells, expected, residual, difference: Math.max(...residual.map(Math.abs))};
  });
  const best = tries.reduce((one, other) => other.difference < one.difference ? other : one);
  const norm = values => Math.sqrt(sum(values.map(value => value * value)));
  const mean = sum(z) / z.length, variation = norm(z.map(value => value - mean));
  const scale = sum(x.map(Math.abs)) * Math.max(...y.map(Math.abs));
  return {
    moved, expected: best.expected, outputShift: best.cells, difference: best.difference,
    relativeDifference: variation <= ROUNDING * scale ? null : norm(best.residual) / variation,
    onlyShifts: best.difference <= ROUNDING * scale,
  };
}
