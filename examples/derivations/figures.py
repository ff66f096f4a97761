"""The figures of the chapters: each drawn from numbers that npvae's own code has just computed.

    python examples/derivations/figures.py                    all of them, into examples/derivations/figures
    python examples/derivations/figures.py elbo_gap masks     these two

What to look for in a figure stands in the docstring of its function.  They are made for a column of 480 pixels, in
letters of 12 pixels or more, and each brings colours for light and for dark pages.
"""
import doctest
import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from npvae import ELBO, VAE, Adam, Callback, cli, fit, kl_per_dimension, load_mnist
from npvae.data import binarize, to_float
from npvae.kernels import reference as kernels
from npvae.layers import hidden_degrees, input_degrees, mask
from npvae.system.files import write_atomically
from npvae.train import Run

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "figures"
if str(HERE.parent) not in sys.path:      # two figures are those of programs in examples/
    sys.path.append(str(HERE.parent))
WIDTH, FONT = 480, 14      # pixels

PAPER, INK, GREY, LINE, BLUE, ORANGE, GREEN = (
    "#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#1f5fa8", "#b34a0c", "#1a7f37")
#: each colour on a dark page
DARK = {PAPER: "#0d1117", INK: "#e6edf3", GREY: "#9aa4ae", LINE: "#353c45", BLUE: "#6cb6ff", ORANGE: "#ff9a57",
        GREEN: "#5fcc74"}
STYLE: dict[str, object] = {
    "font.family": ["DejaVu Sans"], "font.size": FONT, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": GREY, "axes.titlesize": FONT, "axes.titlelocation": "left", "axes.labelsize": FONT,
    "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "axes.formatter.useoffset": False,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelsize": FONT - 1, "ytick.labelsize": FONT - 1,
    "lines.linewidth": 2.5, "path.simplify": False, "text.usetex": False, "svg.fonttype": "none",
    "svg.hashsalt": "npvae"}
Array = np.ndarray


# ---- The page

def page(height: int) -> Figure:
    """An empty figure of WIDTH x height pixels."""
    return Figure(figsize=(WIDTH / 72, height / 72), dpi=72)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the upper left corner."""
    across, down = figure.get_size_inches() * 72
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def svg(figure: Figure, title: str) -> str:
    """The figure as SVG: text as text, coordinates to a tenth of a pixel, and each colour's other self on a dark page.

    The background is opaque, so that a page may be dark where the reader's settings are not, or the other way round.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", facecolor=PAPER, metadata={
        key: None for key in ("Date", "Creator", "Format", "Type")})
    text = re.sub(r"^.*?(?=<svg )", "", stream.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", text)
    text = re.sub(r'(?<= )(?:d|x|y|transform|viewBox|width|height)="[^"]*"', _to_tenths, text)
    text = re.sub(r" ?\n *", "\n", text).replace("\nL ", "L").replace("font-family: 'DejaVu Sans'; ", "")
    dark = "".join(f'[style*="{what}: {light}"]{{{what}:{other}!important}}' for light, other in DARK.items()
                   for what in ("fill", "stroke") if f"{what}: {light}" in text)
    rules = f"text{{font-family:'DejaVu Sans',sans-serif}}@media (prefers-color-scheme: dark){{{dark}}}"
    text = text.replace("</style>", rules + "</style>", 1)
    return text.replace(">", f' role="img">\n<title>{title}</title>', 1)


def _to_tenths(attribute: re.Match[str]) -> str:
    """The coordinates in an attribute, rounded."""
    numbers = re.sub(r"-?\d+\.\d+", lambda one: f"{float(one[0]) + 0.0:.1f}".removesuffix(".0"), attribute[0])
    return re.sub(r"(?<![\d.])-0(?![\d.])", "0", numbers)


def axis_labels(axes: Axes, title: str, across: str, up: str = "") -> None:
    """Title and names of the axes."""
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def canvas(figure: Figure) -> Axes:
    """Axes over the whole page whose coordinates are pixels from the upper left corner."""
    across, down = (float(inches) * 72 for inches in figure.get_size_inches())
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.set_axis_off()
    return axes


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = GREY, bend: float = 0,
          head: str = "-|>") -> None:
    """An arrow between two points."""
    axes.annotate("", end, start, arrowprops={
        "arrowstyle": head, "color": color, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 1, "mutation_scale": 12,
        "connectionstyle": f"arc3,rad={bend}"})


# ---- Chapter 1: the bound

def log_normal(z: Array, mu: float, logvar: float) -> Array:
    """log of the density of N(mu, exp(logvar)) at each z."""
    log_q: Array = -0.5 * (logvar + (z - mu) ** 2 / np.exp(logvar) + np.log(2 * np.pi))
    return log_q


def bounds(means: Sequence[float]) -> tuple[float, list[float], Array, Array]:
    """log p(x), the ELBO of q = N(m, exp(-2 m / 3)) for each m, and the posterior p(z|x) on a grid of z.

    One latent dimension and two pixels, 1 and 0, so that every mean is an integral over a line.
    """
    z, width = np.linspace(-12, 12, 481, retstep=True)
    logits = z.reshape(1, -1, 1) * np.array([1.5, -2.0]) + np.array([0.3, 0.4])
    nll, tail = np.empty((1, len(z))), np.empty(logits.shape)
    kernels.bernoulli_nll_forward(nll, tail, logits, np.array([[1.0, 0.0]]))
    log_joint = log_normal(z, 0, 0) - nll[0]
    log_p = float(np.log(np.exp(log_joint).sum() * width))
    elbos = []
    for mean in means:
        logvar, kl = -2 * mean / 3, np.empty((1, 1))
        kernels.gaussian_kl_forward(kl, np.array([[mean]]), np.array([[logvar]]))
        reconstruction = (np.exp(log_normal(z, mean, logvar)) * nll[0]).sum() * width
        elbos.append(-float(ELBO()(np.array([[reconstruction]]), kl, 0)[0]))
    return log_p, elbos, z, np.exp(log_joint - log_p)


def elbo_gap() -> Figure:
    """log p(x) does not depend on q; the ELBO does, and what it is short of is KL(q(z|x) || p(z|x)).

    Above, the true posterior of one image (filled) and three choices of q.  Below, the bound of each, and of all q
    between them: where q lies over the posterior the gap is small.  It never closes, as the posterior is no Gaussian.
    """
    figure, shown = page(530), {0.0: GREY, 0.45: ORANGE, 0.9: BLUE}
    means = np.linspace(-0.3, 1.9, 45)
    log_p, elbos, z, posterior = bounds([*means, *shown])
    densities = panel(figure, 58, 30, 404, 170)
    near = (z > -3.01) & (z < 4.01)
    z, posterior = z[near], posterior[near]
    densities.fill_between(z, posterior, color=GREEN, alpha=0.25, linewidth=0)
    densities.plot(z, posterior, color=GREEN, linewidth=1.5, gid="posterior")
    densities.text(1.9, 0.3, "p(z|x)", color=GREEN)
    for (mean, color), place in zip(shown.items(), ((-2.2, 0.24), (-1.62, 0.4), (1.15, 0.54))):
        densities.plot(z, np.exp(log_normal(z, mean, -2 * mean / 3)), color=color, gid=f"q-{mean:g}")
        densities.text(*place, f"q, μ = {mean:g}", color=color)
    densities.set(xlim=(-3, 4), ylim=(0, 0.65), yticks=[0, 0.5])
    axis_labels(densities, "One image, its posterior and three q(z|x)", "z", "density")
    values = panel(figure, 58, 278, 404, 190)
    curve = np.array(elbos[:len(means)])
    values.fill_between(means, curve, log_p, color=ORANGE, alpha=0.15, linewidth=0)
    values.axhline(log_p, color=GREEN, gid="log-p")
    values.plot(means, curve, color=INK, gid="elbo")
    for mean, elbo, color in zip(shown, elbos[len(means):], shown.values()):
        values.plot([mean, mean], [elbo, log_p], ":", color=color, linewidth=2)
        values.plot([mean], [elbo], "o", color=color, markersize=9)
    values.text(-0.28, log_p + 0.06, f"log p(x) = −{-log_p:.3f}", color=GREEN)
    values.text(0.5, -1.62, "the gap, KL(q || p(z|x)):", color=INK)
    values.text(0.5, -1.82, f"{log_p - elbos[-3]:.3f},", color=GREY)
    values.text(0.82, -1.82, f"{log_p - elbos[-2]:.3f},", color=ORANGE)
    values.text(1.14, -1.82, f"{log_p - elbos[-1]:.3f}", color=BLUE)
    values.text(0.06, -2.4, "ELBO", color=INK)
    values.set(xlim=(-0.3, 1.9), ylim=(-2.6, -0.9), yticks=[-1, -1.5, -2, -2.5],
               xticks=[0, 0.45, 0.9, 1.35, 1.8])
    axis_labels(values, "The bound of each q", "mean μ of q, its variance exp(−2μ/3)", "nats")
    return figure


# ---- Chapter 5: the order of the KL divergence

def divergence(q: Array, p: Array, width: float) -> float:
    """KL(q || p) of two densities on a grid."""
    return float((q * np.log(q / p)).sum() * width)


def kl_order() -> Figure:
    """The KL divergence is not symmetric: with q first it punishes q where p has little, with p first the other way.

    Above, a posterior of two hills and two Gaussians.  The one on a hill is the better q for KL(q || p), which a VAE
    minimises, the one across both for KL(p || q).  Below, a q of the right mean that is too narrow or too wide: too
    narrow costs little in the order of the VAE, and much in the other.
    """
    figure = page(500)
    z, width = np.linspace(-12, 12, 2401, retstep=True)
    hill, other, across = (np.exp(log_normal(z, mean, logvar)) for mean, logvar in (
        (2, np.log(0.25)), (-2, np.log(0.25)), (0, np.log(4.25))))
    posterior, shown = (hill + other) / 2, slice(600, 1801, 10)      # from -6 to 6
    densities = panel(figure, 46, 30, 416, 170)
    densities.fill_between(z[shown], posterior[shown], color=GREEN, alpha=0.25, linewidth=0)
    densities.plot(z[shown], posterior[shown], color=GREEN, linewidth=1.5, gid="posterior")
    densities.text(-2, 0.43, "p(z|x)", color=GREEN, ha="center")
    for q, color, name, x in ((hill, BLUE, "on-one-hill", 2.6), (across, ORANGE, "across-both", -5.9)):
        densities.plot(z[shown], q[shown], color=color, gid=name)
        densities.text(x, 0.6, f"KL(q || p)  {divergence(q, posterior, width):5.2f}\n"
                               f"KL(p || q)  {divergence(posterior, q, width):5.2f}", color=color)
    densities.set(xlim=(-6, 6), ylim=(0, 0.85), yticks=[0, 0.5])
    axis_labels(densities, "A posterior with two hills, and two Gaussians q", "z", "density")
    values, sigma = panel(figure, 46, 278, 416, 170), np.geomspace(0.1, 10, 81)
    logvar, both = 2 * np.log(sigma)[:, None], np.empty((2, len(sigma), 1))
    for kl, one in zip(both, (logvar, -logvar)):      # in units of sigma, p is N(0, 1 / sigma^2)
        kernels.gaussian_kl_forward(kl, np.zeros_like(one), one)
    for kl, color, name in zip(both[..., 0], (BLUE, ORANGE), ("q-p", "p-q")):
        values.plot(sigma, kl, color=color, gid=name)
    values.text(2.6, 4.6, "KL(q || p)", color=BLUE, ha="right")
    values.text(0.36, 4.6, "KL(p || q)", color=ORANGE)
    values.set(xscale="log", xlim=(0.1, 10), ylim=(0, 6), xticks=[0.1, 0.3, 1, 3, 10],
               xticklabels=["0.1", "0.3", "1", "3", "10"])
    values.minorticks_off()
    axis_labels(values, "q = N(0, σ²) and p = N(0, 1)", "σ of q", "nats")
    return figure


# ---- Chapter 6: reparameterization

def estimates(mu: float, sigma: float, eps: Array) -> tuple[Array, Array]:
    """Of the derivative of E[z^2] by mu, 2 mu: what each draw z = mu + sigma eps says, reparameterized and by the score
    function."""
    means, logvar = np.full((len(eps), 1), mu), np.full((len(eps), 1), 2 * np.log(sigma))
    noise = eps.reshape(-1, 1, 1)
    z, dmu, dlogvar = np.empty_like(noise), np.empty_like(means), np.empty_like(means)
    kernels.reparameterize_forward(z, means, logvar, noise)
    kernels.reparameterize_backward(dmu, dlogvar, 2 * z, logvar, noise)
    return dmu[:, 0], z[:, 0, 0] ** 2 * eps / sigma


def reparameterization() -> Figure:
    """A draw has no derivative; with the noise drawn outside, z is a function of mu and sigma, and has one.

    Above, the same draw twice: values go down in blue, the gradient comes up in orange, on the left as far as z only.
    In the middle, what single draws say of the derivative of E[z^2] by mu, which is 6: both estimators are right on
    average, and the score function is spread wider.  Below, by how much, as q gets narrower: the lines go apart.
    """
    figure = page(720)
    axes = canvas(figure)

    def node(x: float, y: float, text: str, color: str = INK) -> None:
        axes.add_patch(Circle((x, y), 21, facecolor=PAPER, edgecolor=color, linewidth=1.5))
        axes.text(x, y, text, color=color, ha="center", va="center_baseline")

    def edge(start: tuple[float, float], end: tuple[float, float], back: bool) -> None:
        """Down from node to node, and beside it up again."""
        (x0, y0), (x1, y1) = start, end
        along = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0)
        side = 5 * np.array([along[1], -along[0]])
        top, bottom = np.array(start) + 23 * along, np.array(end) - 23 * along
        arrow(axes, tuple(top - side), tuple(bottom - side), BLUE)
        if back:
            arrow(axes, tuple(bottom + side), tuple(top + side), ORANGE)

    axes.text(20, 24, "z drawn from q(z|x)")
    axes.text(250, 24, "z = μ + σ ε, ε from outside")
    for left, back in ((20, False), (250, True)):
        mu, sigma, z, f = (left + 45, 70), (left + 125, 70), (left + 85, 150), (left + 85, 230)
        edge(mu, z, back)
        edge(sigma, z, back)
        edge(z, f, True)
        for place, text in ((mu, "μ"), (sigma, "σ"), (z, "z"), (f, "f(z)")):
            node(*place, text)
    axes.text(134, 146, "random: no", color=ORANGE)
    axes.text(134, 164, "derivative", color=ORANGE)
    edge((415, 110), (335, 150), False)
    node(415, 110, "ε", GREY)
    axes.text(442, 108, "fixed", color=GREY, fontsize=FONT - 2)
    axes.text(382, 190, "dμ = dz", color=ORANGE)
    axes.text(382, 210, "dσ = ε dz", color=ORANGE)
    eps = np.random.default_rng(0).standard_normal(20000)
    bins = np.linspace(-80, 100, 91)
    both = estimates(3.0, 0.5, eps)
    for top, found, name, color in ((302, both[0], "reparameterized", BLUE), (390, both[1], "score function", GREY)):
        counts = panel(figure, 40, top, 420, 66)
        share, _ = np.histogram(found, bins)
        counts.stairs(share / len(eps), bins, fill=True, color=color, gid=name.replace(" ", "-"))
        counts.axvline(6, color=ORANGE, linewidth=1.5)
        counts.text(0.99, 0.9, f"{name}:\nmean {found.mean():.1f}, spread {found.std():.1f}", color=color,
                    transform=counts.transAxes, ha="right", va="top")
        counts.set(xlim=(-80, 100), yticks=[], ylim=(0, None))
        counts.spines["left"].set_visible(False)
    counts.set_xlabel("what one draw says of the derivative, μ = 3, σ = 0.5")
    spread = panel(figure, 56, 536, 404, 134)
    widths = np.geomspace(0.05, 2, 20)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    for which, (name, color) in enumerate((("reparameterized", BLUE), ("score function", GREY))):
        found = np.array([estimates(3.0, width, nodes)[which] for width in widths])
        variance = found ** 2 @ weights - (found @ weights) ** 2
        spread.loglog(widths, np.sqrt(variance), color=color, gid=f"spread-{which}")
    spread.text(0.3, 65, "score function", color=GREY)
    spread.text(0.3, 0.2, "reparameterized", color=BLUE)
    spread.set(xlim=(0.05, 2), xticks=[0.05, 0.1, 0.2, 0.5, 1, 2], yticks=[0.1, 1, 10, 100], ylim=(0.07, 300))
    spread.xaxis.set_major_formatter("{x:g}")
    spread.yaxis.set_major_formatter("{x:g}")
    spread.minorticks_off()
    axis_labels(spread, "Spread of one draw's estimate, μ = 3", "σ of q")
    return figure


# ---- Chapter 7: the network of 2, 3 and 2

def worked_example() -> dict[str, Array]:
    """Every value and gradient of chapter 7's network, by name, from running that chapter up to them."""
    (path,) = HERE.glob("07-*.md")
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()):
        for example in doctest.DocTestParser().get_examples(path.read_text(encoding="utf-8")):
            exec(compile(example.source, path.name, "single"), names)      # the repository's own text
            if "dW1" in names.get("values", {}):
                return {**names, **names["values"]}
    raise ValueError(f"{path}: no values with dW1")


def graph() -> Figure:
    """The network of chapter 7: what went forward in blue, what came back in orange, a row for each of two images.

    Start at the bottom, at the gradient 1 of the loss, and go up: every gradient is the one below it times what its box
    did.  relu passes nothing where its output is 0.  At mu and logvar two paths meet, one through z, one through the KL
    term, and what they bring is added.  A weight's gradient is summed over both images.
    """
    values, pitch, step = worked_example(), 45, 16
    figure = page(1000)
    axes = canvas(figure)

    def box(left: float, top: float, width: float, title: str, *names: str, labels: Sequence[str] = ()) -> Rectangle:
        """A box with a title and, one below the other, the arrays of these names: orange ones begin with d."""
        y = top + 13
        axes.text(left + 5, y, title, fontsize=FONT - 2, va="center_baseline")
        for i, name in enumerate(names):
            shape = values[name.removeprefix("d").split("_")[0]].shape      # of 1 / B, too: one for each
            rows = np.atleast_2d(np.broadcast_to(values[name], shape) if name in values else np.ones((1, 1)))
            y += 3
            if labels:
                axes.text(left + 5, y + step, labels[i], fontsize=FONT - 2, color=GREY, va="center_baseline")
            for row in rows:
                y += step
                for column, number in enumerate(row[::-1]):
                    axes.text(left + width - 5 - pitch * column, y, f"{number:.3f}".replace("-0.000", "0.000"),
                              color=ORANGE if name.startswith("d") else BLUE, fontsize=FONT - 2, ha="right",
                              va="center_baseline")
        frame = Rectangle((left, top), width, y + 11 - top, fill=False, edgecolor=LINE, linewidth=1.5)
        axes.add_patch(frame)
        return frame

    def to(start: Rectangle, end: Rectangle, leave: float = 0.5, arrive: float = 0.5) -> None:
        """An arrow, sideways between neighbours in a row, else from below one box to above the other."""
        (x0, y0, w0, h0), (x1, y1, w1, _) = start.get_bbox().bounds, end.get_bbox().bounds
        if abs(y0 - y1) < 1:
            leaves, arrives = (x0 + w0, x1) if x0 < x1 else (x0, x1 + w1)
            arrow(axes, (leaves, y0 + 28), (arrives, y1 + 28))
        else:
            arrow(axes, (x0 + leave * w0, y0 + h0), (x1 + arrive * w1, y1))

    axes.text(6, 22, "values", color=BLUE)
    axes.text(58, 22, "and gradients", color=ORANGE)
    axes.text(6, 44, "two images, a row", color=GREY, fontsize=FONT - 2)
    axes.text(6, 60, "for each", color=GREY, fontsize=FONT - 2)
    x, last_x = box(184, 6, 99, "x", "x"), box(324, 846, 99, "x", "x")
    first = box(6, 88, 144, "W1, below it b1", "W1", "b1", "dW1", "db1")
    pre1, h1 = box(162, 88, 144, "pre1 = x W1 + b1", "pre1", "dpre1"), box(318, 88, 144, "h1 = relu(pre1)", "h1", "dh1")
    mean_head = box(3, 250, 97, "Wm, bm", "Wm", "bm", "dWm", "dbm")
    parts = ("", "by z", "by kl", "sum")
    mu = box(106, 250, 131, "mu = h1 Wm + bm", "mu", "dmu_z", "dmu_kl", "dmu", labels=parts)
    logvar = box(243, 250, 131, "logvar = h1 Wl + bl", "logvar", "dlogvar_z", "dlogvar_kl", "dlogvar", labels=parts)
    variance_head = box(380, 250, 97, "Wl, bl", "Wl", "bl", "dWl", "dbl")
    eps, z = box(3, 458, 97, "eps", "eps"), box(106, 458, 131, "z = mu + sigma eps", "z", "dz")
    sigma = box(243, 458, 121, "sigma", "sigma", "dsigma")
    kl = box(370, 458, 98, "kl(mu, logvar)", "kl", "dkl")
    second = box(6, 584, 144, "W2, below it b2", "W2", "b2", "dW2", "db2")
    pre2 = box(162, 584, 144, "pre2 = z W2 + b2", "pre2", "dpre2")
    h2 = box(318, 584, 144, "h2 = relu(pre2)", "h2", "dh2")
    third = box(6, 728, 99, "W3, b3", "W3", "b3", "dW3", "db3")
    logits = box(162, 728, 144, "logits = h2 W3 + b3", "logits", "dlogits")
    nll = box(184, 846, 99, "nll(logits, x)", "nll", "dnll")
    loss = box(184, 926, 99, "loss", "loss", "dloss")
    for start, end in ((x, pre1), (first, pre1), (pre1, h1), (mean_head, mu), (variance_head, logvar), (mu, z),
                       (eps, z), (logvar, sigma), (sigma, z), (second, pre2), (pre2, h2), (third, logits),
                       (logits, nll), (last_x, nll), (nll, loss)):
        to(start, end)
    to(h1, mu, 0.25, 0.7)
    to(h1, logvar, 0.5, 0.7)
    to(mu, kl, 0.8, 0.25)
    to(logvar, kl, 0.9, 0.6)
    to(z, pre2, 0.5, 0.05)
    to(h2, logits, 0.25, 0.9)
    axes.plot([468, 475, 475], [500, 500, 960], color=GREY, linewidth=1.5)
    arrow(axes, (475, 960), (283, 960))
    return figure


# ---- Chapter 12: likelihoods

def likelihood_curves(name: str, place: Array, x: float) -> tuple[Array, Array]:
    """nll of one pixel x at each place, a logit or a location, and its derivative there."""
    pixels, nll, dnll = np.full((len(place), 1), x), np.empty((len(place), 1)), np.ones((len(place), 1))
    logits = place.reshape(-1, 1, 1)
    if name in ("bernoulli", "continuous_bernoulli"):
        tail, slope = np.empty(logits.shape), np.empty(logits.shape)
        getattr(kernels, f"{name}_nll_forward")(nll, tail, logits, pixels)
        getattr(kernels, f"{name}_nll_backward")(slope, dnll, tail, logits, pixels)
        return nll[:, 0], slope[:, 0, 0]
    if name == "discretized_logistic":      # locations, and a scale of about 0.05
        output, by_place = np.concatenate([logits, np.full(logits.shape, -3.0)], axis=-1), np.array([[1.0, 0.0]])
    else:      # alpha = 20 p, beta = 20 (1 - p), p the mean; by its logit log p has the derivative 1 - p, log(1 - p) -p
        p = 1 / (1 + np.exp(-place[:, None]))
        output = np.log(20 * np.concatenate([p, 1 - p], axis=-1))[:, None, :]
        by_place = np.concatenate([1 - p, -p], axis=-1)
    slopes = np.empty(output.shape)
    getattr(kernels, f"{name}_nll_forward")(nll, output, pixels)
    getattr(kernels, f"{name}_nll_backward")(slopes, dnll, output, pixels)
    return nll[:, 0], (slopes[:, 0] * by_place).sum(axis=-1)


def likelihoods() -> Figure:
    """What one pixel costs, and the gradient that goes back, for a black, a grey and a white pixel.

    The Bernoulli's gradient is p - x: never steeper than 1, and zero where p = x, though a grey pixel still costs
    something there.  The continuous Bernoulli is a density, so its nll may be negative, and it is mean - x that goes
    back.  The discretized logistic is a valley around the pixel's level, for black and white open to one side.  The
    beta-binomial, over the logit of its mean with alpha + beta = 20 as they are, pulls most in the middle, and hardly
    at all where the mean is quite wrong: there it is alpha + beta that learns.
    """
    rows = {"bernoulli": ("Bernoulli", "logit", np.linspace(-6, 6, 73)),
            "continuous_bernoulli": ("Continuous Bernoulli", "logit", np.linspace(-12, 12, 73)),
            "discretized_logistic": ("Discretized logistic", "location", np.linspace(-0.4, 1.4, 91)),
            "beta_binomial": ("Beta-binomial", "logit of the mean", np.linspace(-6, 6, 73))}
    colors = {0.0: BLUE, 0.2: GREEN, 1.0: ORANGE}
    figure = page(44 + 192 * len(rows))
    for i, (name, (title, across, place)) in enumerate(rows.items()):
        left, right = (panel(figure, x, 66 + 192 * i, 180, 110) for x in (44, 286))
        for x, color in colors.items():
            nll, slope = likelihood_curves(name, place, x)
            left.plot(place, nll, color=color, gid=f"{name}-nll-{x:g}")
            right.plot(place, slope, color=color, gid=f"{name}-gradient-{x:g}")
        right.axhline(0, color=LINE, linewidth=1, zorder=0)
        left.set_title(f"{title}: nll")
        right.set_title("its gradient")
        for axes in (left, right):
            axes.set(xlim=(place[0], place[-1]))
            axes.set_xlabel(across)
    for left_end, (x, color) in zip((60, 180, 320), colors.items()):
        figure.text(left_end / WIDTH, 1 - 26 / (44 + 192 * len(rows)), f"—  pixel x = {x:g}", color=color)
    return figure


# ---- Chapter 11: posterior collapse

class Dimensions(Callback):
    """The KL of each latent dimension on images x (M, D), every so many steps of a run."""

    def __init__(self, x: Array, every: int) -> None:
        self.x, self.every = x, every
        self.epochs: list[float] = []
        self.kl: list[Array] = []      # (Z,) each

    def on_start(self, run: Run) -> None:
        self.look(run)

    def on_step(self, run: Run) -> None:
        if run.step % self.every == 0:
            self.look(run)

    def look(self, run: Run) -> None:
        """One more point."""
        self.epochs.append(run.step / run.batches)
        self.kl.append(kl_per_dimension(run.vae, self.x))


def collapse() -> Figure:
    """The KL of ten latent dimensions in training: under the plain ELBO all collapse at first, and few come back.

    A line is a dimension, blue if it is in use at the end.  The plain ELBO first puts all of them out, stays at that
    saddle point for some ten epochs, and then wakes a few, one after the other; each cure has more of them in use.  The
    runs are those of examples/posterior_collapse.py with a smaller network, fewer images and a larger step; -ELBO and
    KL are measured on test images with beta = 1.
    """
    from posterior_collapse import EPS, measure, objectives
    rng, epochs, batch = np.random.default_rng(0), 50, 125
    train, _, test, _ = load_mnist()
    train, test = binarize(train[:5000], "static", rng), binarize(test[:500], "static", rng)
    steps = epochs * len(train) // batch
    runs = objectives(steps)
    figure = page(26 + 138 * len(runs))
    for i, (name, objective) in enumerate(runs.items()):
        vae = VAE(784, (100,), 10, decoder_hidden=(100, 100), activation="sigmoid", seed=0)
        vae.threads = 1
        vae.start_at(to_float(train).mean(axis=0))
        watch = Dimensions(to_float(test), steps // 50)
        fit(vae, train, test, epochs, batch, Adam(2e-3, eps=EPS), objective, seed=0, callbacks=[watch])
        found = measure(vae, to_float(test), np.random.default_rng(0))
        axes = panel(figure, 44, 28 + 138 * i, 420, 88)
        for kl in np.array(watch.kl).T:
            axes.plot(watch.epochs, kl, color=BLUE if kl[-1] > 0.05 else GREY, linewidth=1.5)
        axes.set(xlim=(0, epochs), ylim=(0, 4.4), yticks=[0, 2, 4])
        axis_labels(axes, f"{name}: −ELBO {found.loss:.1f}, KL {found.rate:.1f}", "", "nats" if not i else "")
    axes.set_xlabel("epoch")
    return figure


# ---- Chapter 14: flows and masks

PLANE = np.array([1.6, 0.6])      # its normal


def planar_step(z0: Array) -> tuple[Array, Array]:
    """Points (N, 2) after one planar step, and the logarithm of its determinant there."""
    u, w, bias = np.array([[1.2, 1.0]]), PLANE[None], np.zeros(1)
    u_hat, stretch, points = np.empty_like(u), np.empty(1), z0[None]
    kernels.planar_direction_forward(u_hat, stretch, u, w)
    z, log_det, pre = np.empty_like(points), np.empty((1, len(z0))), np.empty((1, len(z0)))
    kernels.planar_forward(z, log_det, pre, points, u_hat, stretch, w, bias)
    return z[0], log_det[0]


def planar() -> Figure:
    """A planar step pulls space apart along one direction, near one plane: there the density gets thin.

    On the left a grid, and one and two standard deviations of N(0, I); on the right the same lines after the step.  Far
    from the plane, which is dashed, whole regions are moved and keep their shape, so their density is as it was.  Near
    it the cells get larger, and below, where one goes across the plane, one hill becomes two.
    """
    figure, line, angle = page(500), np.linspace(-2.5, 2.5, 31), np.linspace(0, 2 * np.pi, 49)
    lines = [(np.stack(pair, axis=1), GREY, 0.6) for offset in np.linspace(-2.5, 2.5, 11)
             for pair in ((line, np.full(31, offset)), (np.full(31, offset), line))]
    lines += [(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), BLUE, 2.5) for radius in (1.0, 2.0)]
    lines.append((np.stack([-PLANE[1] * line / PLANE[0], line], axis=1), ORANGE, 2.0))
    for left, title, step in ((6, "before", False), (244, "after one planar step", True)):
        axes = panel(figure, left, 32, 230, 230)
        for i, (points, color, width) in enumerate(lines):
            points = planar_step(points)[0] if step else points
            axes.plot(*points.T, "--" if color == ORANGE else "-", color=color, linewidth=width,
                      gid=f"after-{i}" if step else None)
        axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title)
    axes = panel(figure, 44, 314, 416, 130)
    distance, normal = np.linspace(-4, 4, 81), PLANE / np.hypot(*PLANE)
    z, log_det = planar_step(distance[:, None] * normal)
    density = log_normal(distance, 0, 0)
    axes.plot(distance, np.exp(density), color=GREY, gid="density-before")
    axes.plot(z @ normal, np.exp(density - log_det), color=BLUE, gid="density-after")
    axes.axvline(0, color=ORANGE, linestyle="--", linewidth=2)
    axes.text(0.8, 0.32, "before", color=GREY)
    axes.text(2.35, 0.2, "after", color=BLUE)
    axes.set(xlim=(-4, 4), ylim=(0, 0.43), yticks=[0, 0.2, 0.4])
    axis_labels(axes, "Density, going across the plane", "distance from the plane")
    return figure


def masks() -> Figure:
    """MADE: logit d is reached from the pixels before d and from no other, because masks take weights away.

    Each unit shows its degree.  A hidden unit is joined to what is not above it, an output to what is below it; every
    way into the third logit, in orange, begins at pixel 1 or 2.  Below, the three masks, and their product: how many
    ways lead from each pixel (row) to each logit (column), zero on and below the diagonal.
    """
    order, degrees = input_degrees(5), hidden_degrees(8, 5)
    layers = [order, degrees, degrees, order]
    steps = [mask(order, degrees), mask(degrees, degrees), mask(degrees, order, strict=True)]
    figure = page(492)
    axes = canvas(figure)
    names = ("pixels", "hidden", "hidden", "logits")
    xs = [270 + (46 if len(layer) == 8 else 64) * (np.arange(len(layer)) - (len(layer) - 1) / 2) for layer in layers]
    ys = (34, 124, 214, 304)
    wanted = np.arange(5) == 2
    for i in (2, 1, 0):
        ways = steps[i]
        for color, kept in ((LINE, ways * ~wanted), (ORANGE, ways * wanted)):
            a, b = np.nonzero(kept)
            gaps = np.full(len(a), np.nan)      # one line with gaps
            axes.plot(np.stack([xs[i][a], xs[i + 1][b], gaps], axis=1).ravel(),
                      np.stack([np.full(len(a), ys[i]), np.full(len(a), ys[i + 1]), gaps], axis=1).ravel(), color=color,
                      linewidth=1.6, gid=f"{'into' if color == ORANGE else 'other'}-{i}")
        wanted = (ways[:, wanted] > 0).any(axis=1)
    for name, layer, x, y in zip(names, layers, xs, ys):
        axes.text(6, y, name, color=GREY, va="center_baseline")
        for place, degree in zip(x, layer):
            axes.add_patch(Circle((place, y), 14, facecolor=PAPER, edgecolor=INK, linewidth=1.5, zorder=3))
            axes.text(place, y, f"{degree}", ha="center", va="center_baseline", fontsize=FONT - 1, zorder=4)
    cell, left = 13, 6
    for title, ways in zip(("into hidden", "into hidden", "into logits"), steps):
        axes.text(left, 362, title, fontsize=FONT - 2)
        for color, squares in ((LINE, ways == 0), (BLUE, ways > 0)):
            a, b = np.nonzero(squares)
            axes.scatter(left + cell * b + cell / 2, 372 + cell * a + cell / 2, (cell - 1.5) ** 2, color, marker="s",
                         linewidths=0)
        left += cell * ways.shape[1] + 14
    axes.text(left, 362, "ways, pixel to logit", fontsize=FONT - 2)
    for (a, b), count in np.ndenumerate(steps[0] @ steps[1] @ steps[2]):
        axes.text(left + 27 * b + 22, 384 + 22 * a, f"{count:.0f}", ha="right", va="center_baseline",
                  color=INK if count else GREY, fontsize=FONT - 1)
    return figure


# ---- Chapter 15: estimators

def estimators() -> Figure:
    """Signal and noise of the encoder's gradient, that of IWAE's bound, against the number of draws K.

    The signal falls as 1/K.  The noise of the total gradient falls as 1/sqrt(K) only, so below, the ratio of the two
    falls, too: more draws, a worse gradient.  DReG's noise falls faster than the signal, and its ratio rises.  STL has
    less noise than the total gradient, but another mean, dashed, and its ratio counts that bias as an error.
    """
    from gradient_estimators import measure, trained
    vae, x = trained(1.5, 5000, 0)
    rows = [measure(vae, x, 2 ** power, 100, 0) for power in range(7)]
    draws = [row["K"] for row in rows]
    colors = {"total": GREY, "stl": ORANGE, "dreg": BLUE}
    names = {"total": "total gradient", "stl": "STL", "dreg": "DReG"}
    figure = page(590)
    sizes, ratios = panel(figure, 58, 30, 312, 200), panel(figure, 58, 310, 312, 220)
    sizes.loglog(draws, [row["signal"] for row in rows], "o-", color=INK)
    sizes.text(draws[-1] * 1.15, rows[-1]["signal"], "signal", color=INK, va="center")
    biased = rows[1:]      # one draw has none
    sizes.loglog(draws[1:], [row["bias stl"] for row in biased], "o--", color=ORANGE)
    sizes.text(draws[-1] * 1.15, biased[-1]["bias stl"], "bias of STL", color=ORANGE, va="top")
    for way, color in colors.items():
        for axes, key in ((sizes, f"noise {way}"), (ratios, f"ratio {way}")):
            axes.loglog(draws, [row[key] for row in rows], "o-", color=color)
            axes.text(draws[-1] * 1.15, rows[-1][key], names[way], color=color,
                      va="bottom" if key == "noise total" else "center")
    for axes in (sizes, ratios):
        axes.set(xlim=(0.9, draws[-1] * 1.1), xticks=draws)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axis_labels(sizes, "Signal, and the noise of each estimate", "", "length of the gradient")
    axis_labels(ratios, "Signal to error", "draws K", "")
    return figure


#: file's name -> what draws it
FIGURES: dict[str, Callable[[], Figure]] = {
    drawing.__name__: drawing for drawing in (
        elbo_gap, kl_order, reparameterization, graph, collapse, likelihoods, planar, masks, estimators)}


def draw(name: str) -> str:
    """The SVG of one figure."""
    with matplotlib.rc_context(STYLE):      # type: ignore[arg-type, unused-ignore]      # it takes any mapping
        return svg(FIGURES[name](), (FIGURES[name].__doc__ or "").splitlines()[0])


# ---- The program

def main() -> None:
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; none: all")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="where to write the files")
    args = parser.parse_args()
    for name in args.names:
        if name not in FIGURES:
            raise cli.UsageError(f"there is no figure {name!r}: allowed are {', '.join(FIGURES)}")
    if not args.out.is_dir():
        raise cli.UsageError(f"--out {args.out}: there is no such folder")
    for name in args.names or FIGURES:
        text = draw(name).encode()
        write_atomically(args.out / f"{name}.svg", text)
        print(f"{name + '.svg':24s} {len(text) / 1024:6.1f} KiB")


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
