// The classifier in the page: the forward pass in double precision, from the parameters that are stored.
const model = JSON.parse($("data").textContent).live;
function paramOf([name, shape, text, scales, first]) {
  if (!scales) return [name, { shape, values: floats(text) }];
  const codes = new Int16Array(bytes(text).buffer), scale = floats(scales), wide = codes.length / scale.length;
  const values = Float64Array.from(codes, (code, i) => code * scale[Math.floor(i / wide)]);
  values.set(floats(first));
  return [name, { shape, values }];
}
const params = Object.fromEntries(model.params.map(paramOf));
const known = new Map(model.words.split(" ").map((word, rank) => [word, rank + 4 < model.vocabulary ? rank + 4 : 2]));

// The tokenizer's rules are about bytes: a character of these strings is a byte.
function tokensOf(text) {
  const raw = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  const all = raw.replace(/[A-Z]/g, (c) => c.toLowerCase()).split(/[ !"#$%&()*+,\-./:;<=>?@[\\\]^_`{|}~\t\n]/).filter((word) => word);
  const words = all.filter((word) => known.has(word)), unknown = all.filter((word) => !known.has(word)).map(plain);
  const ids = [1, ...words.map((word) => known.get(word))], names = words.map((word) => plain(word) + (known.get(word) === 2 ? " [rare]" : ""));
  return { ids: ids.slice(-model.length), shown: ["[start]", ...names].slice(-model.length), unknown, left: Math.max(0, ids.length - model.length) };
}
const decoder = new TextDecoder();
const plain = (word) => visible(decoder.decode(Uint8Array.from(word, (c) => c.charCodeAt(0))));
// As `visible` in facts.py: escapes for what cannot be shown, or changes the direction of other characters.
const visible = (text) => text.replace(/[\p{C}\p{Z}]/gu, (c) => {
  const code = c.codePointAt(0), [letter, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return { "\r": "\\r" }[c] ?? `\\${letter}${code.toString(16).padStart(digits, "0")}`;
});

// As `_notes` in experiments/attend: what is said of a text.
function notesOf({ ids, unknown, left }, padding) {
  const names = [...new Set(unknown)], rare = ids.filter((id) => id === 2).length, found = [];
  if (left) found.push(`The text is longer than the model reads: the last ${ids.length} tokens are kept, as in training, and ${left} others are left out.`);
  if (unknown.length) found.push(`Words that are dropped, because no training text has them: ${unknown.length} (${names.slice(0, 8).join(", ")}${names.length > 8 ? ", …" : ""}).`);
  if (rare) found.push(`Words that are too rare for the vocabulary, and have one id together: ${rare}.`);
  if (padding) found.push(`The model also reads ${padding} tokens of padding, and attends to them: it was trained without a mask.`);
  return found;
}

// x [T, D] times a kernel [D, F], plus a bias.
function dense(x, name, rows, scale = 1) {
  const kernel = params[`${name}/kernel`].values, bias = params[`${name}/bias`].values;
  const wide = bias.length, deep = kernel.length / wide, found = new Float64Array(rows * wide);
  for (let t = 0; t < rows; t++) for (let f = 0; f < wide; f++) {
    let sum = bias[f];
    for (let d = 0; d < deep; d++) sum += x[t * deep + d] * kernel[d * wide + f];
    found[t * wide + f] = sum * scale;
  }
  return found;
}

function norm(x, y, name, rows) {
  const gain = params[`${name}/scale`].values, bias = params[`${name}/bias`].values, wide = gain.length;
  const found = new Float64Array(x.length);
  for (let t = 0; t < rows; t++) {
    let mean = 0, variance = 0;
    for (let d = 0; d < wide; d++) mean += (x[t * wide + d] + y[t * wide + d]) / wide;
    for (let d = 0; d < wide; d++) variance += (x[t * wide + d] + y[t * wide + d] - mean) ** 2 / wide;
    const by = 1 / Math.sqrt(variance + 1e-6);
    for (let d = 0; d < wide; d++) found[t * wide + d] = (x[t * wide + d] + y[t * wide + d] - mean) * by * gain[d] + bias[d];
  }
  return found;
}

// Rotates channels c and c + H / 2 of each head [T, N, H] by the angle of the position.
function rotate(x, rows, heads, dim) {
  if (!params["=cos"]) return x;
  const cos = params["=cos"].values, sin = params["=sin"].values, half = dim / 2, found = new Float64Array(x.length);
  for (let t = 0; t < rows; t++) for (let h = 0; h < heads; h++) for (let c = 0; c < half; c++) {
    const at = (t * heads + h) * dim + c, a = x[at], b = x[at + half], angle = t * half + c;
    found[at] = a * cos[angle] - b * sin[angle];
    found[at + half] = b * cos[angle] + a * sin[angle];
  }
  return found;
}

// Queries and keys [T, N, H] and values [T, N, V] to the output [T, N, V] and the weights, a Float64Array [T, T] for each head.
function attend(query, key, value, rows, heads, scale) {
  const dim = query.length / rows / heads, size = value.length / rows / heads, bias = params["=bias"], weights = [];
  const output = new Float64Array(value.length), centre = model.length - 1;
  for (let h = 0; h < heads; h++) {
    const all = new Float64Array(rows * rows);
    for (let t = 0; t < rows; t++) {
      let top = -Infinity, sum = 0;
      const row = all.subarray(t * rows, t * rows + rows);
      for (let s = 0; s < rows; s++) {
        let score = 0;
        for (let c = 0; c < dim; c++) score += query[(t * heads + h) * dim + c] * key[(s * heads + h) * dim + c];
        row[s] = score * scale + (bias ? bias.values[h * (2 * centre + 1) + s - t + centre] : 0);
        top = Math.max(top, row[s]);
      }
      for (let s = 0; s < rows; s++) sum += row[s] = Math.exp(row[s] - top);
      for (let s = 0; s < rows; s++) {
        row[s] /= sum;
        for (let v = 0; v < size; v++) output[(t * heads + h) * size + v] += row[s] * value[(s * heads + h) * size + v];
      }
    }
    weights.push(all);
  }
  return { output, weights };
}

function multiHead(x, name, rows) {
  const [, heads, dim] = params[`${name}/query/kernel`].shape;
  const [query, key] = ["query", "key"].map((each) => rotate(dense(x, `${name}/${each}`, rows), rows, heads, dim));
  const { output, weights } = attend(query, key, dense(x, `${name}/value`, rows), rows, heads, 1 / Math.sqrt(dim));
  return { output: dense(output, `${name}/attention_output`, rows), weights };
}

function layerOf(x, l, rows) {
  const name = `${model.body}_${l}`;
  if (model.body === "attention") return attend(x, x, x, rows, 1, params[`${name}/scale`].values[0]);
  if (model.body === "multi_head") return multiHead(x, name, rows);
  const { output, weights } = multiHead(x, `${name}/MultiHeadAttention_0`, rows), middle = norm(x, output, `${name}/LayerNorm_0`, rows);
  const hidden = dense(middle, `${name}/Dense_0`, rows).map((value) => Math.max(value, 0));
  return { output: norm(middle, dense(hidden, `${name}/Dense_1`, rows), `${name}/LayerNorm_1`, rows), weights };
}

// The logits and weights of the ids; the embedding of token `grown` is multiplied by `factor`.
function forward(ids, grown = -1, factor = 1) {
  const table = params["embedding/tokens/embedding"], wide = table.shape[1], added = params["=positions"] || params["embedding/positions/embedding"];
  const rows = model.masked ? ids.length : model.length, layers = [];
  let x = new Float64Array(rows * wide);
  for (let i = 0; i < x.length; i++) {
    const t = Math.floor(i / wide), value = table.values[(ids[t] || 0) * wide + (i % wide)];
    x[i] = value * (t === grown ? factor : 1) + (added ? added.values[i] : 0);
  }
  for (let l = 0; l < model.layers; l++) {
    const { output, weights } = layerOf(x, l, rows);
    x = output;
    layers.push(weights);
  }
  const last = x.length / rows, pooled = new Float64Array(last);
  x.forEach((value, i) => { pooled[i % last] += value / rows; });
  return { logits: dense(pooled, "logits", 1), layers, rows };
}

// Padding as one token: the weights of its columns added up, its row the mean of theirs.
function merged(weights, rows, real) {
  if (rows === real) return (i) => Float32Array.from(weights.subarray(i * rows, i * rows + rows));
  return (i) => {
    const found = new Float64Array(real + 1), [first, last] = i < real ? [i, i + 1] : [real, rows];
    for (let t = first; t < last; t++) for (let s = 0; s < rows; s++) found[Math.min(s, real)] += weights[t * rows + s] / (last - first);
    return Float32Array.from(found);
  };
}
function headOf(weights, rows, real) {
  const n = real + (rows > real), received = new Float32Array(n), entropy = new Float32Array(n);
  for (let t = 0; t < rows; t++) for (let s = 0; s < rows; s++) {
    const weight = weights[t * rows + s];
    received[Math.min(s, real)] += weight / rows;
    if (weight > 0) entropy[Math.min(t, real)] -= (weight * Math.log(weight)) / (t < real ? 1 : rows - real);
  }
  return { received, entropy, row: merged(weights, rows, real) };
}

function rolled(layers, rows) {
  let found = null;
  for (const heads of layers) {
    const mean = new Float64Array(rows * rows);
    for (const each of heads) for (let i = 0; i < mean.length; i++) mean[i] += each[i] / heads.length;
    if (model.body === "transformer") for (let t = 0; t < rows; t++) for (let s = 0; s < rows; s++) mean[t * rows + s] = (mean[t * rows + s] + (s === t)) / 2;
    const product = found && new Float64Array(rows * rows);
    if (found) for (let t = 0; t < rows; t++) for (let k = 0; k < rows; k++) for (let s = 0; s < rows; s++) product[t * rows + s] += mean[t * rows + k] * found[k * rows + s];
    found = product || mean;
  }
  return found;
}

function liveView(text) {
  const read = tokensOf(text), { ids, shown } = read, { logits, layers, rows } = forward(ids), real = ids.length;
  const top = Math.max(...logits), sum = logits.reduce((a, b) => a + Math.exp(b - top), 0);
  const prediction = Object.fromEntries(model.labels.map((label, c) => [label, Math.exp(logits[c] - top) / sum]));
  const tokens = rows > real ? [...shown, `padding × ${rows - real}`] : shown;
  return {
    ids, tokens, prediction, length: rows, notes: notesOf(read, rows - real), padded: rows > real, logits, effect: null, rollout: headOf(rolled(layers, rows), rows, real),
    layers: layers.map((heads) => ({ heads: heads.map((weights) => headOf(weights, rows, real)) })),
  };
}

// Gradient × input of the margin, by central differences in double precision, one token at a time while nothing else happens.
let turn = 0;
function liveEffect(view, done) {
  const mine = ++turn, found = new Float64Array(view.tokens.length), step = 1e-4, real = view.ids.length;
  const label = view.logits.indexOf(Math.max(...view.logits));
  const margin = ({ logits }) => logits[label] - (logits.reduce((a, b) => a + b) - logits[label]) / (logits.length - 1);
  let token = 0;
  function some() {
    if (mine !== turn) return;
    for (const end = performance.now() + 12; token < real && performance.now() < end; token++)
      found[token] = (margin(forward(view.ids, token, 1 + step)) - margin(forward(view.ids, token, 1 - step))) / (2 * step);
    if (token < real) return void setTimeout(some, 4);
    view.effect = found;
    done();
  }
  setTimeout(some, 150);
}
