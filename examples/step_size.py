"""How small should the step h of a numerical derivative be?  A picture of the error against h.

    python examples/step_size.py [--out examples/pictures/step_size.png]

The function is the loss of a small VAE.  The exact value is its hand-written gradient, right to 1e-15.  Each method has
two errors:

    truncation   the neglected terms of the Taylor series: h f''/2 (forward), h^2 f'''/6 (central and complex)
    rounding     eps |f| / h, because two nearly equal numbers are subtracted; the complex step subtracts nothing

So forward differences are best at h = eps^(1/2), central ones at h = eps^(1/3), and the complex step at any h from 1e-8
down to 1e-300.
"""
import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npvae import VAE, cli
from npvae.system.files import write_atomically
from npvae.plotting import png
from npvae.plotting.figures import BLUE, GREY, ORANGE, label_axes, new_figure

EXPONENTS = np.arange(-20.0, 0.01, 0.25)
SLOPES: dict[str, Callable[[Callable[[Any], Any], float], float]] = {
    "forward": lambda f, h: (f(h) - f(0.0)) / h,
    "central": lambda f, h: (f(h) - f(-h)) / (2 * h),
    "complex": lambda f, h: np.imag(f(1j * h)) / h}


def errors(seed: int = 0, directions: int = 10) -> dict[str, np.ndarray]:
    """method -> relative error (root mean square over random directions) at each step size."""
    config: dict[str, Any] = {"input_dim": 20, "hidden": (12,), "latent_dim": 4, "activation": "tanh", "seed": seed}
    vae = VAE(dtype="float64", kernels="numpy", **config)
    moved = {float: vae, complex: VAE(dtype="complex128", kernels="numpy", **config)}
    rng = np.random.default_rng(seed)
    x, eps = rng.random((8, 20)), rng.standard_normal((8, 1, 4))
    theta, gradient = vae.parameters.flat.copy(), vae.loss_and_gradients(x, eps)[1].flat.copy()
    found = {method: np.zeros((directions, len(EXPONENTS))) for method in SLOPES}
    for k in range(directions):
        v = rng.choice([-1.0, 1.0], theta.shape)

        def along(h: Any) -> Any:
            model = moved[complex if isinstance(h, complex) else float]
            model.parameters.flat[...] = theta + h * v
            return model.loss(x, eps)
        for method, slope in SLOPES.items():
            for i, exponent in enumerate(EXPONENTS):
                found[method][k, i] = slope(along, 10.0 ** exponent) - gradient @ v
    return {method: np.sqrt(np.mean(error ** 2, axis=0)) / np.linalg.norm(gradient) for method, error in found.items()}


def draw(found: dict[str, np.ndarray]) -> bytes:
    """The picture, as PNG."""
    with new_figure(1000, 640) as figure:
        axes = figure.subplots()
        places = {"forward": (1e-7, 1e-2), "central": (1e-9, 3e-11), "complex": (1e-16, 5e-15)}      # between the lines
        for (method, error), color in zip(found.items(), (GREY, BLUE, ORANGE)):
            axes.loglog(10.0 ** EXPONENTS, np.maximum(error, 1e-17), color=color, linewidth=2.5)
            axes.annotate(f"{method}: at best {np.min(error):.0e}", places[method], color=color, ha="center")
        axes.set_ylim(1e-17, 30)
        label_axes(axes, "Numerical derivatives against the hand-written gradient", "step size h",
                   "error, relative to |gradient|")
        return png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("step_size.png"), help="the picture to write")
    args = parser.parse_args()
    if not args.out.parent.is_dir():
        raise cli.UsageError(f"--out {args.out}: there is no folder {args.out.parent}")
    found = errors()
    write_atomically(args.out, draw(found))
    for method, error in found.items():
        best = int(np.argmin(error))
        print(f"{method:8s} best error {error[best]:.1e} at h = {10 ** EXPONENTS[best]:.1e}")
    print(f"picture: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
