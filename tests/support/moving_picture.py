"""The moving picture of explain.html in the README: headless Chromium goes from step to step, and takes pictures.

    npvae train && npvae explain runs/mnist
    python tests/support/moving_picture.py runs/mnist/explain.html examples/pictures/explain.gif
"""
import sys
import tempfile
from pathlib import Path

from PIL import Image

from browser import Browser

WIDTH, HEIGHT, SHOWN = 1100, 820, 700
SECONDS, COLOURS = 1.0, 48


def frames(page, folder):
    """A picture of each step."""
    with Browser() as browser:
        browser.size(WIDTH, HEIGHT)
        browser.open(page)
        for n in range(browser.run("return npvae.nodes.length")):
            browser.run("npvae.go(arguments[0])", n)
            browser.screenshot(folder / f"{n}.png")
            with Image.open(folder / f"{n}.png") as picture:
                yield picture.convert("RGB").resize((SHOWN, round(SHOWN * HEIGHT / WIDTH)), Image.Resampling.LANCZOS)


def main(page, out):
    with tempfile.TemporaryDirectory() as folder:
        pictures = list(frames(page, Path(folder)))
    both = Image.new("RGB", (SHOWN, 2 * pictures[0].height))      # one palette for all, from both passes
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[-1], (0, pictures[0].height))
    palette = both.quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    first, *others = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures]
    first.save(out, save_all=True, append_images=others, duration=round(1000 * SECONDS), loop=0, optimize=True)
    print(f"{out}: {len(pictures)} steps, {Path(out).stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
