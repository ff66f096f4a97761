"""A museum of bugs: mistakes that people make in variational autoencoders, and the check that catches each one.

    python examples/bug_museum.py                       run every exhibit and print the table
    python examples/bug_museum.py --scale 1e-6          the same with the loss a million times smaller
    python examples/bug_museum.py --only "heads swapped"    one exhibit: its line, right and wrong, and what is found
    python examples/bug_museum.py --markdown            the table with every line of code, as Markdown

An exhibit changes a line of npvae while its check runs.  The program shows three things for each: a check catches it; a
gradient check sees it, or not, as stated; and the original code passes the same checks.  The exit code is 0 if all of
this holds.

The lesson is in the second column.  Where it says "no", the gradient is right, but it is that of the wrong function (or
right only the first time).  Such a model trains, its loss falls, and its numbers mean nothing.  It is found by tests of
distributions and bounds: does z have the variance exp(logvar), does p(x|z) sum to one, does the bound stay below
log p(x) where that is known?  Read on in `museum/`.
"""
import argparse
import difflib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from npvae import cli
from npvae.system.terminal import shortened

from museum import checks, latent, network, replays, training
from museum.exhibit import NOT_APPLICABLE, YES, Exhibit, Outdated, Setting, planted

ROOMS = {
    "The dense layer": network.DENSE, "The likelihood": network.LIKELIHOOD,
    "Reparameterization": latent.REPARAMETERIZATION, "KL": latent.KL, "The objective": latent.OBJECTIVE,
    "The whole model": network.WHOLE_MODEL, "Adam": training.ADAM, "Training and evaluation": training.TRAINING}

CHECKS: dict[str, Callable[[Setting], str]] = {
    "complex step": checks.complex_step, "run twice": checks.run_twice, "sampler variance": checks.sampler_variance,
    "score": checks.score, "Monte-Carlo KL": checks.monte_carlo_kl, "independent noise": checks.independent_noise,
    "density sums to one": checks.density_sums_to_one, "draws follow the density": checks.draws_follow_the_density,
    "initial weights": checks.initial_weights, "exact log p(x)": checks.exact_log_p,
    "IWAE grows with K": checks.iwae_grows, "new images": checks.new_images, "row routing": checks.row_routing,
    "objective by hand": replays.objective_by_hand, "Adam by hand": replays.adam_by_hand,
    "epoch by hand": replays.epoch_by_hand, "binarization": replays.binarization}


@dataclass(frozen=True)
class Result:
    """The result of one exhibit: what its check found, and what the complex step found; "" is nothing."""

    exhibit: Exhibit
    found: str
    gradient: str
    outdated: str = ""      # why it could not be planted; "" if it was

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Pairs of lines, right and wrong; for an exhibit that could not be planted, the pieces of code it names."""
        return [change[1:] for change in self.exhibit.changes] if self.outdated else self.exhibit.lines()

    @property
    def verdict(self) -> str:
        if self.outdated:
            return "OUTDATED"
        if not self.found:
            return "ESCAPED"
        return "caught" if (self.exhibit.seen == YES) == bool(self.gradient) else "NOT AS STATED"


def run(check: str, setting: Setting) -> str:
    """What a check finds; "" if nothing.  No warnings: wrong code may overflow or divide by zero."""
    with np.errstate(all="ignore"):
        return CHECKS[check](setting)


def examine(exhibit: Exhibit, scale: float = 1.0) -> Result:
    """Plant the mistake, run its check and the complex step, and remove the mistake."""
    setting = replace(exhibit.setting, scale=scale)
    try:
        with planted(exhibit):
            found = run(exhibit.caught_by, setting)
            gradient = found if exhibit.caught_by == "complex step" else run("complex step", setting)
    except Outdated as error:
        return Result(exhibit, "", "", str(error))
    except NameError as error:      # the wrong line has a name that npvae has changed
        return Result(exhibit, "", "", f"exhibit {exhibit.name!r}: {error}")
    return Result(exhibit, found, gradient)


def intact(exhibits: list[Exhibit], scale: float = 1.0) -> dict[tuple[str, Setting], str]:
    """All checks of these exhibits on the original code: (check, setting) -> what it found, "" if nothing."""
    pairs = {(check, replace(exhibit.setting, scale=scale)): "" for exhibit in exhibits
             for check in (exhibit.caught_by, "complex step")}
    return {pair: run(*pair) for pair in pairs}


def text(results: list[Result]) -> Iterator[str]:
    """The table for a terminal, room by room."""
    by_name = {result.exhibit.name: result for result in results}
    for room, exhibits in ROOMS.items():
        shown = [by_name[exhibit.name] for exhibit in exhibits if exhibit.name in by_name]
        if shown:
            yield f"\n{room:52s} {'gradient check':14s} {'caught by':24s} {'verdict':8s} found"
        for result in shown:
            exhibit = result.exhibit
            yield (f"  {exhibit.name:50s} {exhibit.seen:14s} {exhibit.caught_by:24s} {result.verdict:8s} "
                   f"{shortened(result.found, 70)}")


def markdown(results: list[Result]) -> Iterator[str]:
    """The table in Markdown, with the lines of code and who shipped them."""
    by_name = {result.exhibit.name: result for result in results}
    for room, exhibits in ROOMS.items():
        yield (f"\n### {room}\n\n| exhibit | should say | says | gradient check | caught by | verdict | found | "
               "shipped by |\n|---|---|---|---|---|---|---|---|")
        for result in (by_name[exhibit.name] for exhibit in exhibits if exhibit.name in by_name):
            exhibit = result.exhibit
            right, wrong = ("<br>".join(f"`{line}`" for line in lines) for lines in zip(*result.lines))
            cells = (exhibit.name, right, wrong, exhibit.seen, exhibit.caught_by, result.verdict, result.found,
                     exhibit.shipped)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def story(result: Result) -> Iterator[str]:
    """One exhibit in detail."""
    exhibit = result.exhibit
    yield f"{exhibit.name}"
    for (function, _, _), (right, wrong) in zip(exhibit.changes, result.lines):
        yield f"  in           {function.__module__}.{function.__qualname__}"
        yield f"  should say   {right}"
        yield f"  says         {wrong}"
    yield f"  shipped by   {exhibit.shipped or 'nobody we know of'}"
    yield f"  caught by    {exhibit.caught_by}: {' '.join((CHECKS[exhibit.caught_by].__doc__ or '').split())}"
    yield f"  found        {result.found or 'nothing'}"
    sees = result.gradient or "nothing" + " (this code has no gradient)" * (exhibit.seen == NOT_APPLICABLE)
    yield f"  a gradient check finds {sees}"
    yield f"  verdict      {result.verdict}{result.outdated and ': ' + result.outdated}"


def summary(results: list[Result]) -> str:
    """Counts: exhibits, caught, and seen by a gradient check."""
    caught = sum(result.verdict == "caught" for result in results)
    seen, none = (sum(result.exhibit.seen == answer for result in results) for answer in (YES, NOT_APPLICABLE))
    return (f"{len(results)} exhibits, {caught} caught.  A gradient check sees {seen}, does not see "
            f"{len(results) - seen - none}, and has nothing to look at in {none}")


def arguments() -> tuple[argparse.Namespace, list[Exhibit]]:
    """The flags, and the exhibits to run."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, allow_abbrev=False,      # errors then take one line
                                     description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=cli.number(float, 0, strict=True), default=1.0, metavar="NUMBER",
                        help="multiply the loss and its gradients by a positive number (default 1)")
    parser.add_argument("--only", metavar="NAME", help="one exhibit, in detail")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown, with the lines of code")
    args = parser.parse_args()
    exhibits = {exhibit.name: exhibit for room in ROOMS.values() for exhibit in room}
    if args.only is None:
        return args, list(exhibits.values())
    if args.only not in exhibits:
        near = difflib.get_close_matches(args.only, exhibits, 3, 0.3)
        parser.error(f"--only {args.only!r} names no exhibit; similar: {'; '.join(near) or 'none'}")
    return args, [exhibits[args.only]]


def main() -> int:
    args, exhibits = arguments()
    results = [examine(exhibit, args.scale) for exhibit in exhibits]
    alarms = {pair: found for pair, found in intact(exhibits, args.scale).items() if found}
    print("\n".join(story(results[0]) if args.only else markdown(results) if args.markdown else text(results)))
    if not args.only:
        print(f"\n{summary(results)}; loss x {args.scale:g}")
    for result in results:
        if result.outdated and not args.only:
            print(f"OUTDATED: {result.outdated}")
    for (check, setting), found in alarms.items():
        print(f"FALSE ALARM on the intact code: {check} ({setting.activation}, {setting.likelihood}, "
              f"{type(setting.objective).__name__}): {found}")
    if not alarms:
        print("The intact code passes all of these checks.")
    return int(any(result.verdict != "caught" for result in results) or bool(alarms))


if __name__ == "__main__":
    sys.exit(main())
