// The decoder of a variational autoencoder in a web page: z -> image.  Nothing is loaded; all it needs stands in the
// element "model", as npvae/pages/explorer.py wrote it:
//   layers      the decoder: W (in, out) row by row, b (out), and the name of f, the function after them
//   shape       [height, width] of an image, and 3 if it has colours       ink     is 1 black on white?
//   reach       plane and sliders go from -reach to reach
//   mu          means of q(z|x) of test images, Z numbers each         colours   one for each of them
//   thumbs      a few test images, one byte a pixel                    thumbMu   their means
//   shown       the two dimensions that the plane shows at first
//   draws       of the prior, Z numbers each, unless that is N(0, I)
//   classes     how many labels a conditional model knows, 0 for any other       thumbLabels   one for each of thumbs
"use strict";
const model = JSON.parse(document.getElementById("model").textContent);
const byId = id => document.getElementById(id);
const all = selector => [...document.querySelectorAll(selector)];

// ---- 1. Functions of a number

// Each is one expression, after at most one choice.

// The normal distribution's tail, Phi(-t) for t >= 0, to nine digits: D2.12 of examples/derivations with h = 0.8.
const midpoints = t => t * Math.exp(-t * t / 2) * (
  0.235069647 / (t * t + 0.16) + 0.123950444 / (t * t + 1.44) + 0.0344628469 / (t * t + 4)
  + 0.00505249329 / (t * t + 7.84) + 0.000390581682 / (t * t + 12.96) + 1.59209702e-05 / (t * t + 19.36)
  + 3.42198987e-07 / (t * t + 27.04) + 3.8782825e-09 / (t * t + 36));
const tail = t => t < 7 ? midpoints(t) + 1 / (1 + Math.exp(2.5 * Math.PI * t)) : midpoints(t);

// Between layers f is the model's activation.  After the last it makes the mean of a pixel: sigmoid for Bernoulli pixels,
// whose mean is a probability, identity for Gaussian ones, continuous_bernoulli for those, exp for counts whose log mean
// is the output.
const FUNCTIONS = {
  identity: a => a,
  relu: a => Math.max(0, a),
  leaky_relu: a => a < 0 ? 0.01 * a : a,
  elu: a => a < 0 ? Math.expm1(a) : a,
  tanh: a => Math.tanh(a),
  sigmoid: a => 1 / (1 + Math.exp(-a)),
  softplus: a => Math.max(0, a) + Math.log1p(Math.exp(-Math.abs(a))),
  silu: a => a / (1 + Math.exp(-a)),
  gelu: a => a < 0 ? a * tail(-a) : a - a * tail(a),
  exp: a => Math.exp(a),
  continuous_bernoulli: a => Math.abs(a) < 0.1 ? 0.5 + a / 12 - a ** 3 / 720 : 1 / (1 - Math.exp(-a)) - 1 / a,
};

// ---- 2. The decoder

// Arrays travel as base64: the text stands for bytes, and four bytes, the least significant first, for a float32.
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const floats = text => new Float32Array(bytes(text).buffer);

const layers = model.layers.map(({W, b, f}) => ({W: floats(W), b: floats(b), f: FUNCTIONS[f]}));
const L = model.classes, Z = layers[0].W.length / layers[0].b.length - L;

// A dense layer, out = f(x W + b):  out[j] = f(b[j] + sum over i of x[i] W[i, j]), summed in double precision.
function dense(x, {W, b, f}) {
  const out = Float64Array.from(b), n = out.length;
  for (let i = 0; i < x.length; i++)
    for (let j = 0; j < n; j++) out[j] += x[i] * W[i * n + j];
  return out.map(a => f(a));
}

// A conditional decoder is told a label as well: behind z stand L numbers, a one for the label and zeros for the others.
const chosen = byId("class");
const oneHot = () => Array.from({length: L}, (_, label) => label === chosen.selectedIndex ? 1 : 0);

// E[x|z]: each layer takes what the one before it gives.
const decode = z => Float32Array.from(layers.reduce(dense, [...z, ...oneHot()]));

// ---- 3. The picture

// A pixel is ink on white paper, 0 white and 1 black, or light, 0 black and 1 white.  What lies beyond is cut off (a
// Uint8ClampedArray does that).
function draw(canvas, image) {
  const colours = model.shape[2] ?? 1;
  [canvas.height, canvas.width] = model.shape;
  const picture = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < image.length; i += colours) {
    const rgb = [0, 1, 2].map(c => image[i + c % colours]).map(v => 255 * (model.ink ? 1 - v : v));
    picture.data.set([...rgb, 255], 4 * i / colours);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// ---- 4. The point z

const sliders = all("#sliders input");
let point = [], shown = model.shown;

// Whatever moves the point ends here: first the image, then all that says where the point is.
function setPoint(z, event) {
  point = Array.from(z);
  draw(byId("image"), decode(point));
  if (event) npvae.latency = performance.now() - event.timeStamp;
  byId("where").textContent = shown.map(j => `z[${j}] = ${point[j].toFixed(2)}`).join("\n");
  for (const slider of sliders) {
    slider.value = point[slider.dataset.j];
    slider.nextElementSibling.textContent = point[slider.dataset.j].toFixed(2);
  }
  if (Z > 1) byId("handle").setAttribute("transform", `translate(${place(point)})`);
}

// By hand, not by the animation: only the coordinates in `changes`, {j: value}.
function move(changes, event) {
  stop();
  setPoint(Object.assign([...point], changes), event);
}

for (const slider of sliders)
  slider.addEventListener("input", event => move({[slider.dataset.j]: Number(slider.value)}, event));
byId("zero").addEventListener("click", () => move(Array(Z).fill(0)));
chosen.addEventListener("change", () => move({}));

// z ~ p(z): for N(0, I) a normal number from two uniform ones (Box and Muller 1958), else one of the prior's draws.
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
const rows = numbers => Array.from({length: numbers.length / Z}, (_, i) => numbers.subarray(i * Z, (i + 1) * Z));
const draws = rows(floats(model.draws)), any = list => list[Math.floor(Math.random() * list.length)];
byId("sample").addEventListener("click", () => move(draws.length ? any(draws) : Array.from({length: Z}, normal)));

// ---- 5. The plane of two dimensions: an SVG from -100 to 100, its y pointing down

const plane = byId("plane"), axes = all(".axis"), unit = 100 / model.reach;
const place = z => [unit * z[shown[0]], -unit * z[shown[1]]];
const dots = rows(floats(model.mu));

function drawPlane() {
  const step = Math.ceil(model.reach / 6), ticks = [];
  for (let v = step; v < 0.93 * model.reach; v += step) ticks.push(-v, v);
  byId("scatter").innerHTML =
    `<path d="M-100 0H100M0-100V100"/><text x="98" y="-3" text-anchor="end">z[${shown[0]}]</text>` +
    `<text x="3" y="-93">z[${shown[1]}]</text>` +
    (draws.length ? [] : [1, 2, 3]).map(sigma => `<circle class="prior" r="${sigma * unit}"/>`).join("") +
    ticks.map(v => `<text x="${v * unit}" y="98" text-anchor="middle">${v}</text>` +
                   `<text x="-98" y="${2 - v * unit}">${v}</text>`).join("") +
    dots.map((z, i) => `<circle r="1.1" transform="translate(${place(z)})" fill="${model.colours[i]}"/>`).join("");
}

axes.forEach((select, i) => {
  select.value = shown[i];
  select.addEventListener("change", () => {
    if (axes[0].value === axes[1].value) axes[1 - i].value = shown[i];      // the two change places
    shown = axes.map(axis => Number(axis.value));
    drawPlane();
    setPoint(point);
  });
});

// Mouse, pen and finger are pointers; the plane keeps the one that pressed it until it lets go.
const inside = v => Math.max(-model.reach, Math.min(model.reach, v));
function drag(event) {
  const box = plane.getBoundingClientRect();
  move({[shown[0]]: inside(((event.clientX - box.left) / box.width * 2 - 1) * model.reach),
        [shown[1]]: inside((1 - (event.clientY - box.top) / box.height * 2) * model.reach)}, event);
}
plane.addEventListener("pointerdown", event => { plane.setPointerCapture(event.pointerId); drag(event); });
plane.addEventListener("pointermove", event => { if (plane.hasPointerCapture(event.pointerId)) drag(event); });
plane.addEventListener("keydown", event => {
  const direction = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1]}[event.key];
  if (!direction) return;
  event.preventDefault();      // of scrolling
  const j = shown[direction[0]];
  move({[j]: inside(point[j] + 0.1 * direction[1])}, event);
});

// ---- 6. From one test image to another: z = (1 - t) mu_a + t mu_b

const thumbs = all("#thumbs button"), thumbMu = rows(floats(model.thumbMu)), pixels = bytes(model.thumbs);
const D = pixels.length / thumbs.length, t = byId("t"), play = byId("play");
let ends = [], frame = 0;

// With labels: those of the image that is nearer.
function morph(value) {
  t.value = value;
  choose(ends[value < 0.5 ? 0 : 1]);
  setPoint(thumbMu[ends[0]].map((from, j) => (1 - value) * from + value * thumbMu[ends[1]][j]));
}

// There and back in four seconds, slower at the ends, from where t stands.
function start() {
  const begin = performance.now() - Math.acos(1 - 2 * t.value) / Math.PI * 2000;
  const step = now => {
    morph((1 - Math.cos((now - begin) / 2000 * Math.PI)) / 2);
    frame = requestAnimationFrame(step);
  };
  frame = requestAnimationFrame(step);
  play.textContent = "Pause";
}

function stop() {
  cancelAnimationFrame(frame);
  frame = 0;
  play.textContent = "Play";
}

function choose(i) {
  if (L) chosen.selectedIndex = model.thumbLabels[i];
}

function pick(i) {
  choose(i);
  move(thumbMu[i]);
  ends = [...ends.filter(end => end !== i), i].slice(-2);
  thumbs.forEach((thumb, j) => thumb.setAttribute("aria-pressed", ends.includes(j)));
  t.disabled = play.disabled = ends.length < 2;
  t.value = 0;
  if (ends.length === 2 && !matchMedia("(prefers-reduced-motion: reduce)").matches) start();
}

thumbs.forEach((thumb, i) => {
  draw(thumb.firstElementChild, Array.from(pixels.subarray(i * D, (i + 1) * D), byte => byte / 255));
  thumb.addEventListener("click", () => pick(i));
});
t.addEventListener("input", () => { stop(); morph(Number(t.value)); });
play.addEventListener("click", () => frame ? stop() : start());

// ---- 7. Begin; window.npvae is for the console, and for the tests

window.npvae = {decode, setPoint: z => move(z), get point() { return [...point]; }, latency: null};
if (Z > 1) drawPlane();
choose(0);
setPoint(thumbMu[0]);
