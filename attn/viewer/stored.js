// Arrays from text, and the view of the weights that are stored. A view has, for each layer, heads with
// row(i): Float32Array of the weights of query i (0 where none is stored), received and entropy.
function bytes(text) {
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}
const floats = (text) => new Float32Array(bytes(text).buffer);
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, rest = bits & 1023;
  if (power === 31) return rest ? NaN : sign * Infinity;
  return sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
}
const halves = (text) => Float32Array.from(new Uint16Array(bytes(text).buffer), half);

function coded(stored, precision) {
  const scale = floats(stored.scale), small = precision === "uint8";
  const codes = small ? bytes(stored.codes) : halves(stored.codes);
  return (row, place, width) => (small ? (codes[row * width + place] * scale[row]) / 255 : codes[row * width + place]);
}

function storedLayer(layer, n) {
  const value = coded(layer, layer.precision), width = layer.top || n;
  const keys = layer.top && new Uint16Array(bytes(layer.keys).buffer);
  const full = layer.full && coded(layer.full, layer.precision), queries = layer.full ? layer.full.queries : [];
  const received = floats(layer.received), entropy = floats(layer.entropy);
  const head = (h) => ({
    received: received.subarray(h * n, h * n + n),
    entropy: entropy.subarray(h * n, h * n + n),
    row(i) {
      const found = new Float32Array(n), whole = queries.indexOf(i);
      if (whole >= 0) for (let j = 0; j < n; j++) found[j] = full(h * queries.length + whole, j, n);
      else for (let p = 0; p < width; p++) found[keys ? keys[(h * n + i) * width + p] : p] = value(h * n + i, p, width);
      return found;
    },
  });
  return { heads: Array.from({ length: layer.heads }, (_, h) => head(h)) };
}

function storedRollout(stored, n, heads) {
  const received = floats(stored.received);
  if (!stored.codes) { // of a single layer
    const own = stored.residual ? 0.5 : 0;
    const row = (i) => meanOf(heads.map((head) => head.row(i))).map((weight, j) => (1 - own) * weight + (i === j ? own : 0));
    return { received, row };
  }
  const value = coded(stored, "uint8"), known = (i) => (stored.queries ? stored.queries.indexOf(i) : i);
  return { received, row: (i) => (known(i) < 0 ? null : Float32Array.from({ length: n }, (_, j) => value(known(i), j, n))) };
}

function storedView(data) {
  const n = data.tokens.length, layers = data.layers.map((layer) => storedLayer(layer, n));
  return {
    tokens: data.tokens, length: data.length, padded: data.padded, prediction: data.prediction, effect: data.effect && floats(data.effect),
    layers, rollout: storedRollout(data.rollout, n, layers[0].heads),
  };
}
