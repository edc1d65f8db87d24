// What is drawn of a view. Text enters the page as text nodes only.
const $ = (id) => document.getElementById(id);
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
const most = (values) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
// The largest value of a token that is no padding: that of many tokens of padding would leave the others pale.
const mostReal = (view, values) => most(view.padded ? values.subarray(0, values.length - 1) : values);
const named = (view, i) => view.tokens[i];
const rowHead = (view, i) => make("th", { scope: "row" }, named(view, i), make("small", {}, String(i)));

function meanOf(rows) {
  const found = new Float32Array(rows[0].length);
  for (const row of rows) for (let j = 0; j < found.length; j++) found[j] += row[j] / rows.length;
  return found;
}

// What is chosen: one head, the mean of the heads, or the rollout.
function chosen(view, state) {
  if (state.layer === "rollout") return view.rollout;
  const heads = view.layers[state.layer].heads;
  if (state.head !== "mean") return heads[state.head];
  return { received: meanOf(heads.map((head) => head.received)), row: (i) => meanOf(heads.map((head) => head.row(i))) };
}

function drawTokens(view, state) {
  const values = (state.token !== null && chosen(view, state).row(state.token)) || chosen(view, state).received;
  const top = mostReal(view, values), strongest = view.effect && most(view.effect), buttons = $("tokens").children;
  for (let i = 0; i < buttons.length; i++) {
    const button = buttons[i], effect = view.effect ? view.effect[i] : 0;
    button.className = effect < 0 ? "against" : "";
    button.style.setProperty("--a", Math.min(100, (100 * values[i]) / top));
    button.style.setProperty("--b", view.effect ? (100 * Math.abs(effect)) / strongest : 0);
    button.style.setProperty("--e", effect < 0 ? "var(--against)" : "var(--for)");
    button.setAttribute("aria-pressed", state.token === i);
    button.tabIndex = i === (state.token ?? 0) ? 0 : -1;
  }
  const what = state.token === null ? "attention it receives" : `“${named(view, state.token)}” looks at it`;
  const line = view.effect ? " The line below is gradient × input: solid for the prediction, dotted against it." : "";
  $("legend").textContent = `The darker a token, the more ${what}.${line} Click a token, or use the arrow keys; Escape leaves it.`;
}

function bar(share, text) {
  const inner = make("i");
  inner.style.width = `${100 * Math.min(1, Math.abs(share))}%`;
  return make("td", {}, text, make("span", { className: "bar" }, inner));
}
function effectCell(view, j) {
  const value = view.effect[j], text = `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
  return make("td", { className: value < 0 ? "against" : "for" }, text);
}

function drawDetail(view, state) {
  const section = $("detail");
  section.hidden = state.token === null;
  if (section.hidden) return;
  const now = chosen(view, state).row(state.token), title = make("h2", {}, `What “${named(view, state.token)}” looks at`, make("small", {}, `token ${state.token}`));
  if (!now) return section.replaceChildren(title, make("p", {}, "The rollout of this token is not stored."));
  const rollout = state.layer === "rollout";
  const rows = rollout ? [now] : [...view.layers[state.layer].heads.map((head) => head.row(state.token))];
  const head = make("tr", {}, make("th", { scope: "col" }, "token"));
  rows.forEach((_, h) => head.append(make("th", { scope: "col", className: state.head === h ? "now" : "" }, rollout ? "rollout" : `head ${h}`)));
  if (view.effect) head.append(make("th", { scope: "col" }, "gradient × input"));
  const order = [...now.keys()].sort((a, b) => now[b] - now[a]).slice(0, 10), body = make("tbody");
  for (const j of order) {
    const line = make("tr", {}, rowHead(view, j));
    line.dataset.key = j;
    for (const row of rows) line.append(bar(row[j] / mostReal(view, row), row[j].toFixed(4)));
    if (view.effect) line.append(effectCell(view, j));
    body.append(line);
  }
  const table = make("table", {}, make("thead", {}, head), body), region = make("div", { className: "scroll", tabIndex: 0 }, table);
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", title.textContent);
  section.replaceChildren(title, make("p", { className: "quiet" }, `The ${order.length} largest weights, by the chosen head.`), region);
}

const ranks = (values) => {
  const order = [...values.keys()].sort((a, b) => values[a] - values[b]), found = new Float64Array(values.length);
  for (let first = 0, last; first < order.length; first = last) {
    for (last = first + 1; last < order.length && values[order[last]] === values[order[first]]; ) last++;
    for (let k = first; k < last; k++) found[order[k]] = (first + last - 1) / 2;
  }
  return found;
};
function spearman(a, b) {
  const x = ranks(a), y = ranks(b), middle = (a.length - 1) / 2;
  let both = 0, one = 0, other = 0;
  for (let i = 0; i < x.length; i++) {
    both += (x[i] - middle) * (y[i] - middle);
    one += (x[i] - middle) ** 2;
    other += (y[i] - middle) ** 2;
  }
  return both / (Math.sqrt(one * other) || 1);
}

function drawDisagreement(view, state) {
  const section = $("disagree");
  section.hidden = !view.effect;
  if (section.hidden) return;
  const received = chosen(view, state).received, sizes = Float64Array.from(view.effect, Math.abs);
  const sum = (values) => values.reduce((a, b) => a + b, 0) || 1, all = sum(received), total = sum(sizes);
  const gap = (i) => received[i] / all - sizes[i] / total;
  const order = [...sizes.keys()].sort((a, b) => Math.abs(gap(b)) - Math.abs(gap(a))).slice(0, 6), body = make("tbody");
  for (const i of order) {
    const share = (value) => make("td", {}, `${(100 * value).toFixed(1)} %`);
    body.append(make("tr", {}, rowHead(view, i), share(received[i] / all), share(sizes[i] / total), effectCell(view, i)));
  }
  const names = ["token", "attention", "effect", "gradient × input"].map((name) => make("th", { scope: "col" }, name));
  const said = `The rank correlation of received attention and size of the effect is ${spearman(received, sizes).toFixed(2)}. The largest differences:`;
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...names)), body);
  section.replaceChildren(make("h2", {}, "Where attention and effect disagree"), make("p", {}, said), make("div", { className: "scroll", tabIndex: 0 }, table));
}

// The alpha of a pixel is its weight over the largest one; of many tokens a pixel is the largest weight of several.
function* pixels(view, state) {
  const n = view.tokens.length, side = Math.min(n, 512), cells = new Float32Array(side * side), head = chosen(view, state);
  for (let i = 0; i < n; i++) {
    const row = head.row(i), at = Math.floor((i * side) / n) * side;
    for (let j = 0; row && j < n; j++) {
      const cell = at + Math.floor((j * side) / n);
      if (row[j] > cells[cell]) cells[cell] = row[j];
    }
    yield;
  }
  const real = view.padded ? cells.filter((_, cell) => cell % side < side - 1) : cells;
  return { side, cells, top: most(real) };
}
function finished(steps) {
  let step = steps.next();
  while (!step.done) step = steps.next();
  return step.value;
}

// The map of a long text is computed between other events, so that the page can be used at once.
let latest = null;
function drawHeat(view, state) {
  const n = view.tokens.length, steps = (latest = pixels(view, state));
  if (n <= 300) paint(finished(steps));
  else setTimeout(function some() {
    for (const end = performance.now() + 12; latest === steps && performance.now() < end; ) {
      const step = steps.next();
      if (step.done) return paint(step.value);
    }
    if (latest === steps) setTimeout(some);
  });
  $("rows").replaceChildren(...(n > 32 ? [] : view.tokens.map((token, i) => make("li", { className: i === state.token ? "now" : "" }, token.slice(0, 14)))));
  const frame = $("frame");
  frame.hidden = state.token === null;
  frame.style.top = `${(100 * (state.token ?? 0)) / n}%`;
  frame.style.height = `${100 / n}%`;

  function paint({ side, cells, top }) {
    const canvas = $("canvas"), image = new ImageData(side, side);
    const colour = getComputedStyle(document.documentElement).getPropertyValue("--heat").trim();
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    canvas.width = canvas.height = side;
    for (let i = 0; i < cells.length; i++) {
      for (let part = 0; part < 3; part++) image.data[4 * i + part] = parts[part];
      image.data[4 * i + 3] = Math.min(255, Math.round((255 * cells[i]) / top));
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    const said = `queries from top to bottom, keys from left to right; the darkest weight is ${top.toFixed(3)}${view.padded ? " or more" : ""}.`;
    canvas.setAttribute("aria-label", `Attention weights, ${said}`);
    $("caption").textContent = `Q${said.slice(1)} Click a row to choose its token.`;
  }
}

function drawEntropy(view, state) {
  const heads = Math.max(...view.layers.map((layer) => layer.heads.length)), head = make("tr", {}, make("td"));
  for (let h = 0; h < heads; h++) head.append(make("th", { scope: "col" }, `head ${h}`));
  const body = make("tbody");
  view.layers.forEach((layer, l) => {
    const line = make("tr", {}, make("th", { scope: "row" }, `layer ${l}`));
    layer.heads.forEach(({ entropy }, h) => {
      const value = state.token === null ? entropy.reduce((a, b) => a + b, 0) / entropy.length : entropy[state.token];
      line.append(make("td", { className: l === state.layer && (state.head === h) ? "now" : "" }, value.toFixed(2)));
    });
    body.append(line);
  });
  $("entropy").replaceChildren(make("table", {}, make("thead", {}, head), body));
  const whose = state.token === null ? "The mean over the tokens" : `That of “${named(view, state.token)}”`;
  $("nats").textContent = `${whose}, in nats: 0 looks at one token, ${Math.log(view.length).toFixed(2)} at all ${view.length} alike.`;
}
