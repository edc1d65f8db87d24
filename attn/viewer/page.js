// The controls: what is chosen, and what happens then.
const data = JSON.parse($("data").textContent);
const state = { layer: data.layer, head: data.head ?? "mean", token: null };
let view = data.live ? liveView($("text").value) : storedView(data);

function radios(name, values, label) {
  const set = make("fieldset", {}, make("legend", {}, name));
  for (const value of values) {
    const input = make("input", { type: "radio", name, value, checked: state[name] === value });
    input.addEventListener("change", () => { state[name] = value; choices(); draw(); });
    set.append(make("label", {}, input, " ", label(value)));
  }
  return set;
}
function choices() {
  const focus = document.activeElement && document.activeElement.name, layers = [...view.layers.keys(), "rollout"];
  const heads = state.layer === "rollout" ? [] : ["mean", ...view.layers[state.layer].heads.keys()];
  if (heads.length && !heads.includes(state.head)) state.head = "mean";
  const parts = [radios("layer", layers, String)];
  if (heads.length) parts.push(radios("head", heads, String));
  $("choice").replaceChildren(...parts);
  $("choice").hidden = false;
  const again = focus && $("choice").querySelector(`input[name="${focus}"]:checked`);
  if (again) again.focus();
}
function draw() {
  for (const part of [drawTokens, drawDetail, drawDisagreement, drawHeat, drawEntropy]) part(view, state);
}
function select(token, focus) {
  state.token = token === null ? null : Math.min(Math.max(token, 0), view.tokens.length - 1);
  draw();
  if (focus && state.token !== null) $("tokens").children[state.token].focus();
}
function showTokens() {
  const buttons = view.tokens.flatMap((token) => [make("button", { type: "button" }, token), " "]);
  $("tokens").replaceChildren(...buttons);
}

$("tokens").addEventListener("click", (event) => {
  const at = [...$("tokens").children].indexOf(event.target.closest("button"));
  if (at >= 0) select(at === state.token ? null : at, true);
});
$("tokens").addEventListener("keydown", (event) => {
  const at = [...$("tokens").children].indexOf(document.activeElement);
  const moves = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: view.tokens.length - 1 };
  if (event.key in moves) { event.preventDefault(); select(moves[event.key], true); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") select(null); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

const frame = make("div", { className: "row", id: "frame" }), canvas = make("canvas", { id: "canvas" });
canvas.setAttribute("role", "img");
canvas.addEventListener("click", (event) => select(Math.floor((event.offsetY / canvas.clientHeight) * view.tokens.length)));
$("heat").querySelector("svg").replaceWith(make("div", { className: "map" }, make("ol", { id: "rows" }), make("div", {}, canvas, frame)));
$("rows").setAttribute("aria-hidden", "true");

function svgPicture() {
  const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`), parts = [];
  const values = (state.token !== null && chosen(view, state).row(state.token)) || chosen(view, state).received, top = mostReal(view, values);
  const pen = make("canvas").getContext("2d");
  pen.font = "13px sans-serif";
  const wide = (text) => Math.ceil(pen.measureText(text).width);
  let x = 8, y = 8;
  view.tokens.forEach((token, i) => {
    const width = wide(token) + 10;
    if (x > 8 && x + width > 720) { x = 8; y += 22; }
    const edge = i === state.token ? ' stroke="#1d2026"' : "";
    parts.push(`<rect x="${x}" y="${y}" width="${width - 2}" height="19" fill="#2f6db5" fill-opacity="${Math.min(0.5, (0.5 * values[i]) / top).toFixed(3)}"${edge}/>`);
    parts.push(`<text x="${x + 4}" y="${y + 14}" textLength="${width - 10}" lengthAdjust="spacingAndGlyphs">${escaped(token)}</text>`);
    x += width;
  });
  const map = finished(pixels(view, state)), size = 420 / map.side;
  const names = view.tokens.length > 32 ? [] : view.tokens.map((token) => token.slice(0, 14)), longest = Math.max(0, ...names.map(wide)), left = 12 + longest;
  y += longest;
  names.forEach((name, i) => {
    const middle = (i + 0.5) * size + 4, bold = i === state.token ? ' font-weight="bold"' : "";
    parts.push(`<text x="${left - 5}" y="${y + 32 + middle}" text-anchor="end"${bold}>${escaped(name)}</text>`);
    parts.push(`<text transform="translate(${left + middle} ${y + 27}) rotate(-90)">${escaped(name)}</text>`);
  });
  map.cells.forEach((weight, i) => {
    if (weight < map.top / 255) return;
    const place = `x="${(left + (i % map.side) * size).toFixed(2)}" y="${(y + 32 + Math.floor(i / map.side) * size).toFixed(2)}"`;
    parts.push(`<rect ${place} width="${size.toFixed(2)}" height="${size.toFixed(2)}" fill="#1f5fae" fill-opacity="${Math.min(1, weight / map.top).toFixed(3)}"/>`);
  });
  const open = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 736 ${y + 460}" width="736" height="${y + 460}" font-family="sans-serif" font-size="13" fill="#1d2026">`;
  return `${open}<rect width="100%" height="100%" fill="#fff"/>${parts.join("")}</svg>`;
}
$("export").hidden = false;
$("export").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([svgPicture()], { type: "image/svg+xml" }));
  make("a", { href: url, download: "attention.svg" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});

if (data.live) {
  const showNotes = () => {
    for (const note of $("notes").querySelectorAll(".typed")) note.remove();
    $("notes").append(...view.notes.map((note) => make("li", { className: "typed" }, note)));
  };
  $("text").addEventListener("input", () => {
    view = liveView($("text").value);
    state.token = null;
    showNotes();
    $("prediction").textContent = Object.entries(view.prediction).map(([label, p]) => `${label} ${p.toFixed(3)}`).join(" · ");
    showTokens();
    draw();
    liveEffect(view, draw);
  });
  showNotes();
  showTokens();
  liveEffect(view, draw);
}
choices();
draw();
document.documentElement.dataset.ready = "true";
