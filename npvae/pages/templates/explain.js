// One image goes through the network, and its gradient comes back.  Nothing is loaded; all that is shown stands in the
// element "model", as npvae/pages/explain.py wrote it:
//   nodes      the calls of kernels in order: kernel, phase, formula, ids (of its equations), doc, and arguments, each
//              with the kernel's name for it (parameter), the model's (name), kind, written, shape, turned (is it
//              stored transposed?), source (the step that wrote it), and for weights and their gradients tensor and
//              start, its first entry there
//   cases      image by image, and for each the places of the slider: ids, the numbers of the arrays of all arguments of
//              all nodes; shown, those of x, mu, ...; loss
//   arrays     lists of numbers; float32, int16 (times unit) or bits in base64; or made of other arrays: product, masked,
//              part (from its upper left corner on, of a matrix of so many columns)
//   checks     for each tensor some entries: index, weight, slopes of each case: gradient, complex step, central difference
//   links      for each equation the address of its chapter
//   shape      [height, width] of an image         small    show every number
"use strict";
const model = JSON.parse(document.getElementById("model").textContent);
const byId = id => document.getElementById(id);
const {nodes, places} = model, D = model.shape[0] * model.shape[1];
const size = shape => shape.reduce((product, n) => product * n, 1);
const starts = [];      // of each node's arguments in `ids`
nodes.reduce((sum, node) => (starts.push(sum), sum + node.arguments.length), 0);

// ---- 1. Values

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const known = [];      // arrays that have been decoded

function decode(entry) {
  if (Array.isArray(entry)) return Float64Array.from(entry);
  if (entry.float32) return Float64Array.from(new Float32Array(bytes(entry.float32).buffer));
  if (entry.bits) {
    const packed = bytes(entry.bits);
    return Float64Array.from({length: entry.size}, (_, i) => packed[i >> 3] >> 7 - i % 8 & 1);
  }
  if (entry.int16) return Float64Array.from(new Int16Array(bytes(entry.int16).buffer), value => value * entry.unit);
  if (entry.masked) {
    const [W, mask] = entry.masked.map(array);
    return W.map((value, i) => mask[i] ? value : 0);
  }
  if (entry.corner) {
    const whole = array(entry.part), [top, left] = entry.corner, {columns, width} = entry;
    return Float64Array.from({length: entry.size}, (_, i) => whole[(top + Math.floor(i / width)) * columns + left + i % width]);
  }
  // out[i, j] = sum over l of a[i, l] b[l, j], where a mask does not say 0
  const [a, b, mask] = entry.product.map(array), [M, L, N] = entry.sizes, [aTurned, bTurned] = entry.turned;
  const out = new Float64Array(M * N);
  for (let i = 0; i < M; i++)
    for (let l = 0; l < L; l++) {
      const factor = a[aTurned ? l * M + i : i * L + l];
      for (let j = 0; j < N; j++) out[i * N + j] += factor * b[bTurned ? j * L + l : l * N + j];
    }
  return mask ? out.map((value, i) => mask[i] ? value : 0) : out;
}
const array = id => known[id] ??= decode(model.arrays[id]);

const image = byId("case"), slider = byId("eps");
const caseNumber = () => image.selectedIndex * places.length + Number(slider.value);
const ids = () => model.cases[caseNumber()].ids;
const values = (node, i) => array(ids()[starts[node] + i]);

// The gradient of a tensor, put together from what the steps wrote of it.
function gradient(tensor) {
  const out = new Float64Array(size(model.tensors[tensor]));
  nodes.forEach((node, n) => node.arguments.forEach((one, i) => {
    if (one.written && one.kind === "gradient" && one.tensor === tensor) out.set(values(n, i), one.start);
  }));
  return out;
}

// ---- 2. Text

const number = (value, digits = 4) => {
  const size = Math.abs(value);
  if (value === 0) return "0";
  return (size < 1e-3 || size >= 1e5 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits))))
    .replace("-", "−");
};
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  element.append(...children);
  return element;
};
// A text, with the ids of equations in it as links to their chapters.
const linked = text => text.split(/\b(D\d+\.\d+)\b/).map((part, i) =>
  i % 2 && model.links[part] ? make("a", {href: model.links[part]}, part) : part);
const shapeOf = one => (one.shape.join(" × ") || "1") + (one.turned ? ", transposed" : "");
const link = n => {
  const button = make("button", {type: "button", class: "link"}, `step ${n + 1}`);
  button.addEventListener("click", () => go(n));
  return button;
};

// ---- 3. Pictures: a colour for what is above zero, the ink for what is below

const colour = name => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
};
let palette = {};
function readPalette() {
  palette = {paper: colour("--paper"), below: colour("--faint"), gradient: colour("--orange"), value: colour("--blue")};
}
const shade = (t, kind) => {
  const end = t < 0 ? palette.below : kind === "gradient" ? palette.gradient : palette.value;
  return palette.paper.map((from, i) => from + Math.min(1, Math.abs(t)) * (end[i] - from));
};

// Where the numbers of an array lie in its picture: [width, height, index of a pixel or -1].
function layout(shape) {
  const [h, w] = model.shape, columns = shape.length ? shape[shape.length - 1] : 1, rows = size(shape) / columns;
  const tiles = (count, entry) => {      // each with a gap to the right and below
    const across = Math.min(count, Math.max(1, Math.round(Math.sqrt(2 * count * h / w)))), down = Math.ceil(count / across);
    return [across * (w + 1) - 1, down * (h + 1) - 1, (x, y) => {
      const tile = Math.floor(y / (h + 1)) * across + Math.floor(x / (w + 1)), i = x % (w + 1), j = y % (h + 1);
      return i < w && j < h && tile < count ? entry(tile, j * w + i) : -1;
    }];
  };
  if (!model.small && D > 1) {
    if (columns % D === 0) return tiles(rows * columns / D, (tile, pixel) => tile * D + pixel);
    if (shape.length === 2 && rows >= D && rows < 2 * D)      // weights of each unit, from the image
      return tiles(columns, (tile, pixel) => pixel * columns + tile);
  }
  if (rows === 1 && columns > 64) {      // in lines
    const across = Math.ceil(Math.sqrt(4 * columns));
    return [across, Math.ceil(columns / across), (x, y) => y * across + x < columns ? y * across + x : -1];
  }
  return [columns, rows, (x, y) => y * columns + x];
}

function summary(numbers) {
  let low = Infinity, high = -Infinity, squares = 0;
  for (const value of numbers) {
    low = Math.min(low, value);
    high = Math.max(high, value);
    squares += value * value;
  }
  return {low, high, most: Math.max(-low, high) || 1, norm: Math.sqrt(squares)};
}

function picture(numbers, shape, kind, label, pick = null, scale = null) {
  const [width, height, index] = layout(shape), {low, high, most} = summary(numbers), end = scale ?? most;
  const text = `${label}, ${shape.join(" by ")}: ${number(low)} to ${number(high)}`;
  const canvas = make("canvas", {width, height, role: "img", "aria-label": text, title: text});
  const pixels = new ImageData(width, height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const i = index(x, y);
      if (i >= 0) pixels.data.set([...shade(numbers[i] / end, kind), 255], 4 * (y * width + x));
    }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.style.width = `${Math.min(width * Math.max(1, Math.floor((height < 40 ? 240 : 480) / width)), 672)}px`;
  if (height === 1) canvas.style.height = "1.5rem";
  if (pick) {
    canvas.classList.add("pick");
    canvas.addEventListener("click", event => {
      const box = canvas.getBoundingClientRect();
      const place = (at, length, count) => Math.min(count - 1, Math.max(0, Math.floor(at / length * count)));
      const i = index(place(event.clientX - box.left, box.width, width), place(event.clientY - box.top, box.height, height));
      if (i >= 0) pick(i);
    });
  }
  return canvas;
}

function table(numbers, shape, kind, label, pick = null, scale = null) {
  const columns = shape.length ? shape[shape.length - 1] : 1, end = scale ?? summary(numbers).most;
  const body = make("table", {class: "numbers-of", "aria-label": label});
  for (let row = 0; row * columns < numbers.length; row++)
    body.append(make("tr", {}, ...Array.from(numbers.slice(row * columns, (row + 1) * columns), (value, column) => {
      const text = number(value), i = row * columns + column;
      const content = pick ? make("button", {type: "button", class: "plain"}, text) : text;
      if (pick) content.addEventListener("click", () => pick(i));
      const cell = make("td", {}, content);
      cell.style.background = `rgb(${shade(0.55 * value / end, kind)})`;
      return cell;
    })));
  return make("div", {class: "scroll"}, body);
}

// A table where all numbers can be read, else a picture.
const show = (numbers, shape, ...rest) =>
  (numbers.length <= 12 || model.small && numbers.length <= 64 ? table : picture)(numbers, shape, ...rest);

// ---- 4. A step

let current = 0;
const whole = one => one.name.replace(/\[.*/, "");
const readers = nodes.map((node, n) => node.arguments.map(one => one.written ? nodes.flatMap((later, m) =>
  later.arguments.some(other => !other.written && other.source === n && whole(other) === whole(one)) ? [m] : []) : []));

function card(n, i, scale) {
  const one = nodes[n].arguments[i];
  let numbers = values(n, i), shape = one.shape;
  if (one.turned) shape = [shape[1], shape[0]];      // drawn as it is stored
  const pick = one.tensor === undefined ? null : entry => choose(one.tensor, one.start + entry);
  const kind = one.kind === "gradient" ? "gradient" : "value", {norm} = summary(numbers);
  const box = make("figure", {class: `array ${kind}`}, make("figcaption", {},
    make("b", {}, one.name), one.parameter === one.name ? "" : make("span", {class: "faint"}, ` (${one.parameter})`),
    make("small", {}, ` ${shapeOf(one)}`)));
  if (numbers.length) box.append(show(numbers, shape, kind, one.name, pick, scale));
  const foot = make("p", {class: "foot"});
  if (numbers.length > 1) foot.append(`norm ${number(norm)} `);
  if (one.written && readers[n][i].length) foot.append("read by ", ...readers[n][i].flatMap(m => [link(m), " "]));
  if (!one.written && one.source !== null && one.source !== undefined) foot.append("from ", link(one.source));
  if (!one.written && one.kind === "parameter") foot.append("learned");
  if (one.written && one.tensor !== undefined) foot.append(`the gradient of ${one.tensor}`);
  box.append(foot);
  return box;
}

function titleOf(node) {
  const outputs = node.arguments.filter(one => one.written).map(one => one.name), [out, a, b] = node.arguments;
  if (node.kernel === "matmul" || node.kernel === "mask_backward") {
    const product = node.phase !== "backward" ? `${a.name} ${b.name}` :
      out.tensor !== undefined ? `${a.name}^T ${b.name}` : `${a.name} ${b.name}^T`;
    return `${out.name} = ${product}${node.arguments.length > 3 ? ", where the mask is 1" : ""}`;
  }
  if (node.kernel === "add" && node.phase === "backward") return `Two paths meet: ${out.name} = ${a.name} + ${b.name}`;
  if (node.phase === "objective") return "The objective: one loss, and the two gradients that start the way back";
  return `${node.kernel}: ${outputs.join(", ")}`;
}

function go(n) {
  current = Math.min(nodes.length - 1, Math.max(0, n));
  const node = nodes[current], list = byId("arrays");
  byId("step").dataset.phase = node.phase;
  byId("count").textContent = `step ${current + 1} of ${nodes.length}, ${node.phase}`;
  byId("title").textContent = titleOf(node);
  byId("formula").textContent = node.formula;
  byId("ids").replaceChildren(...linked(node.ids.length ? `Equations ${node.ids.join(", ")}` : ""));
  byId("doc").replaceChildren(...linked(node.doc));
  const between = {add: "+", subtract: "−"}[node.kernel];      // terms and their sum are drawn on one scale
  const scale = between ? Math.max(...node.arguments.map((_, i) => summary(values(current, i)).most)) : null;
  const cards = node.arguments.map((_, i) => card(current, i, scale));
  const [written, read] = [true, false].map(which => cards.filter((_, i) => node.arguments[i].written === which));
  const after = (sign, box) => make("div", {class: "after"}, make("span", {class: "sign"}, sign), box);
  list.replaceChildren(...read.map((box, i) => i && between ? after(between, box) : box),
    ...written.map((box, i) => i ? box : after(between ? "=" : "→", box)));
  if (node.phase === "objective")
    list.append(make("figure", {class: "array value"}, make("figcaption", {}, make("b", {}, "loss")),
      make("p", {}, number(model.cases[caseNumber()].loss, 8))));
  byId("back").disabled = current === 0;
  byId("on").disabled = current === nodes.length - 1;
  all.forEach((button, i) => {      // the tabulator stops once in the map
    button.setAttribute("aria-current", i === current ? "step" : "false");
    button.tabIndex = i === current ? 0 : -1;
  });
  if (byId("map").contains(document.activeElement)) all[current].focus({preventScroll: true});
  const box = all[current].parentElement, map = byId("map");
  const below = box.offsetTop, visible = map.clientHeight;
  if (below < map.scrollTop || below + box.offsetHeight > map.scrollTop + visible)
    map.scrollTop = below - visible / 2;
}

const all = [...document.querySelectorAll("#map button")];
all.forEach((button, n) => button.addEventListener("click", () => go(n)));
byId("back").addEventListener("click", () => go(current - 1));
byId("on").addEventListener("click", () => go(current + 1));
document.addEventListener("keydown", event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select")) return;
  const target = {ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: nodes.length - 1}[event.key];
  if (target === undefined) return;
  event.preventDefault();
  go(target);
});

// ---- 5. One weight

const tensor = byId("tensor"), entry = byId("entry");
let flat = 0;      // the weight, in the tensor read row by row
const flatOf = (index, shape) => index.reduce((sum, i, axis) => sum * shape[axis] + i, 0);
const indexOf = (i, shape) => shape.map((_, axis) => Math.floor(i / size(shape.slice(axis + 1))) % shape[axis]);
const checked = () => model.checks[tensor.value];

function choose(name, i) {
  tensor.value = name;
  flat = i;
  weight();
}

function weight() {
  const shape = model.tensors[tensor.value], found = checked();
  const at = found.findIndex(one => flatOf(one.index, shape) === flat);
  entry.replaceChildren(...found.map(one => make("option", {}, `[${one.index}]`)));
  if (at < 0) entry.append(make("option", {}, `[${indexOf(flat, shape)}] (not checked)`));
  entry.selectedIndex = at < 0 ? found.length : at;
  const name = `${tensor.value}[${indexOf(flat, shape)}]`;
  const slopes = at < 0 ? [gradient(tensor.value)[flat]] : found[at].slopes[caseNumber()];
  const row = (text, value) => make("tr", {}, make("th", {scope: "row"}, ...linked(text)),
    make("td", {}, value === undefined ? "not computed" : number(value, 12)),
    make("td", {class: "faint"}, value === undefined || value === slopes[0] ? "" : `differs by ${number(value - slopes[0], 2)}`));
  byId("slopes").replaceChildren(row(`d loss / d ${name}, backpropagation`, slopes[0]),
    row("complex step, Im loss(w + ih) / h (D9.3)", slopes[1]),
    row("central difference, (loss(w + h) − loss(w − h)) / 2h (D9.1)", slopes[2]));
  byId("verdict").textContent = at < 0
    ? `For this weight the page holds the gradient alone; of ${tensor.value} it was checked for ${found.length} others.`
    : `w = ${number(found[at].weight, 8)}. The complex step is right to rounding, the central difference to its step.`;
}
tensor.addEventListener("change", () => choose(tensor.value, flatOf(checked()[0].index, model.tensors[tensor.value])));
entry.addEventListener("change", () => {
  const one = checked()[entry.selectedIndex];
  if (one) choose(tensor.value, flatOf(one.index, model.tensors[tensor.value]));
});

// ---- 6. The image and eps

function pass() {
  const place = number(places[Number(slider.value)], 2);
  byId("where").textContent = `= ${place}`;
  slider.setAttribute("aria-valuetext", `eps ${model.j} is ${place}`);
  const {shown, loss} = model.cases[caseNumber()];
  byId("pass").replaceChildren(...model.shown.map(([name, shape], i) => make("div", {}, make("dt", {}, name),
    make("dd", {}, show(array(shown[i]), shape, "value", name)))),
    make("div", {}, make("dt", {}, "loss, nats"), make("dd", {class: "loss"}, number(loss, 6))));
}
function draw() {
  pass();
  go(current);
  weight();
}
image.addEventListener("change", draw);
slider.addEventListener("input", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); draw(); });

// ---- 7. Begin; window.npvae is for the console, and for the tests

window.npvae = {nodes, values: (n, i) => Array.from(values(n, i)), gradient: name => Array.from(gradient(name)), go,
                get step() { return current; }, get loss() { return model.cases[caseNumber()].loss; }};
readPalette();
flat = flatOf(checked()[0].index, model.tensors[tensor.value]);
draw();
