"""A GIF of the latent plane of a VAE with Z = 2 during training, from noise to digits.

    python examples/manifold_movie.py                                        runs/manifold.gif, in less than a minute
    python examples/manifold_movie.py --epochs 60 --frames 80 --seed 1       longer, and another plane
    python examples/manifold_movie.py --data-dir FOLDER --out fashion.gif    a folder of IDX files, an .npy or .npz file

Every frame decodes the same codes z: a grid at the quantiles of the prior, so that each tile has the same probability
(`npvae.plotting.manifold_grid`; Kingma and Welling 2014, figure 4).  All frames come from one training run.  Most
changes happen in the first epoch, so the steps between frames grow in geometric progression.

What to look for: first all is grey, since every pixel has probability 1/2; then every tile is nearly the mean of all
digits, as the decoder does not use z yet; then round and upright shapes separate; at last single digits appear, with
mixtures of two between them.
"""
import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from npvae import VAE, Callback, cli, fit
from npvae.system.files import write_atomically
from npvae.data import ALLOWED, load, to_float
from npvae.plotting.figures import mosaic
from npvae.plotting import manifold_grid
from npvae.train import Run

EPOCHS = 30
SIDE = 16      # tiles along each side of the plane
DENSE = 10      # in the first steps all frames would be grey: see `frame_steps`
LEVELS = 16      # shades of grey: enough for strokes, and half the bytes of 256
FONT, LINE, MARGIN = 19, 40, 4      # pixels: size, height and margin of the text below the plane
FRAME_MS, FIRST_MS, LAST_MS = 100, 600, 2500
TEST_IMAGES = 2000      # for the loss in each frame


def frame_steps(total: int, frames: int) -> list[int]:
    """Steps from 0 to `total`, step + DENSE in geometric progression.  No step occurs twice, so a short run has fewer
    frames."""
    i = np.arange(frames) / (frames - 1)
    return [int(step) for step in np.unique(np.rint(DENSE * ((total / DENSE + 1) ** i - 1)))]


class Film(Callback):
    """Takes a frame after each of `steps`.  `x` (M, D) are the test images that the loss is measured on."""

    def __init__(self, steps: list[int], x: np.ndarray, image_shape: tuple[int, ...], seed: int) -> None:
        self.steps, self.x, self.image_shape, self.seed = set(steps), x, image_shape, seed
        self.frames: list[Image.Image] = []

    def on_start(self, run: Run) -> None:
        self.bar = cli.progress(None, "step", run.epochs * run.batches)
        self.take(run)

    def on_step(self, run: Run) -> None:
        self.bar.update()
        if run.step in self.steps:
            self.take(run)

    def on_end(self, run: Run) -> None:
        self.bar.close()

    def take(self, run: Run) -> None:
        """Draw the plane as it is now.  The loss has the same noise in all frames, drawn apart from training."""
        loss = -float(run.vae.elbo(self.x, np.random.default_rng(self.seed)).mean())
        z = manifold_grid(SIDE).reshape(-1, 2).astype(run.vae.dtype)
        tiles = run.vae.decode(z).reshape(SIDE, SIDE, -1)
        self.frames.append(draw(tiles, self.image_shape, f"step {run.step:,}", f"epoch {run.step / run.batches:.1f}",
                                f"test loss {loss:.1f} nats"))


def draw(tiles: np.ndarray, image_shape: tuple[int, ...], left: str, middle: str, right: str) -> Image.Image:
    """Tiles (R, C, D) in [0, 1], 1 being black, with three texts below them."""
    from matplotlib.font_manager import findfont      # matplotlib brings the font, as it brings Pillow
    ink, *_ = mosaic(tiles, image_shape)
    height, width = ink.shape
    page = Image.new("L", (width, height + LINE), 255)
    page.paste(Image.fromarray(255 - ink), (0, 0))
    pen, font = ImageDraw.Draw(page), ImageFont.truetype(findfont("DejaVu Sans"), FONT)
    between = (pen.textlength(left, font) + width - pen.textlength(right, font)) / 2
    for text, x, anchor in ((left, MARGIN, "lm"), (middle, between, "mm"), (right, width - MARGIN, "rm")):
        pen.text((x, height + LINE // 2), text, fill=0, font=font, anchor=anchor)
    return page


def gif(frames: list[Image.Image]) -> bytes:
    """The frames as a GIF in LEVELS shades of grey, which loops and pauses at the last frame."""
    grey = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
    shades = []
    for frame in frames:
        nearest = np.rint(np.asarray(frame) * ((LEVELS - 1) / 255)).astype(np.uint8)
        shade = Image.fromarray(nearest, "P")
        shade.putpalette(np.repeat(grey, 3).tobytes())
        shades.append(shade)
    durations = [FRAME_MS] * len(frames)
    durations[0], durations[-1] = FIRST_MS, LAST_MS
    stream = io.BytesIO()
    shades[0].save(stream, format="GIF", save_all=True, append_images=shades[1:], duration=durations, loop=0,
                   optimize=True)
    return stream.getvalue()


def arguments() -> argparse.Namespace:
    """The flags.  Raises UsageError, also if the picture cannot be written: before training, not after it."""
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    parser.add_argument("--epochs", type=cli.number(int, 1), default=EPOCHS, help="passes over the training images")
    parser.add_argument("--hidden", type=cli.widths, default="400", metavar="400,200",
                        help="widths of the encoder's hidden layers, mirrored in the decoder")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="seed of all random numbers: another plane")
    parser.add_argument("--frames", type=cli.number(int, 2), default=50, help="number of frames")
    parser.add_argument("--data-dir", default="mnist", metavar="PATH", help=f"{ALLOWED}; mnist comes with npvae")
    parser.add_argument("--limit", type=cli.number(int, 1), default=None, metavar="N",
                        help="use only the first N images")
    parser.add_argument("--out", type=Path, default=Path("runs/manifold.gif"), metavar="FILE", help="a .gif file")
    args = parser.parse_args()
    if args.out == parser.get_default("out"):
        args.out.parent.mkdir(exist_ok=True)
    cli.output("--out", args.out, [".gif"])
    return args


def main() -> None:
    args = arguments()
    images = load(args.data_dir)
    x_train, x_test = images.train_images[:args.limit], images.test_images[:args.limit]
    vae = VAE(x_train.shape[1], args.hidden, latent_dim=2, seed=args.seed)
    batch = min(128, len(x_train))
    steps = frame_steps(args.epochs * -(-len(x_train) // batch), args.frames)
    film = Film(steps, to_float(x_test[:TEST_IMAGES]), images.image_shape, args.seed)
    history = fit(vae, x_train, x_test, args.epochs, batch, seed=args.seed, callbacks=[film])
    data = gif(film.frames)
    write_atomically(args.out, data)
    print(f"test loss after epoch {args.epochs}: {history[-1]['test_loss']:.2f} nats per image, all test images")
    print(f"{len(film.frames)} frames, {film.frames[0].width} x {film.frames[0].height} pixels, "
          f"{len(data) / 1e6:.2f} MB: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
