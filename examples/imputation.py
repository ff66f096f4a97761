"""How well missing cells are filled in: a VAE, scikit-learn's IterativeImputer, and the means of the columns.

    python examples/imputation.py FOLDER [--seeds 5] [--missing 0.3]

FOLDER holds tables as .csv files of numbers with a header; the last column, a class or a target, is left out.  Of each
table a fraction of the cells is hidden at random, and filled in by imputers that have seen the others alone.  Printed
is the root mean square error of the hidden cells, each in units of its column's standard deviation: mean +- standard
deviation over the seeds.  Needs scikit-learn: pip install "npvae[sklearn]".
"""
import argparse
import csv
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer

from npvae.sklearn import VAEImputer

Table = NDArray[np.float64]

#: name -> fills in a table, with a seed
IMPUTERS: dict[str, Callable[[Table, int], Table]] = {
    "means": lambda X, seed: SimpleImputer().fit_transform(X),
    "IterativeImputer": lambda X, seed: IterativeImputer(random_state=seed).fit_transform(X),
    "VAEImputer": lambda X, seed: VAEImputer(random_state=seed).fit_transform(X)}


def table(path: Path) -> Table:
    """The numbers (N, D) of a .csv file with a header, without its last column."""
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return np.array([row[:-1] for row in rows], float)


def hidden_cells(X: Table, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which cells are hidden: each with this probability, but no row loses all."""
    hidden = np.random.default_rng(seed).random(X.shape) < fraction
    hidden[hidden.all(axis=1), 0] = False
    return hidden


def error(filled: Table, X: Table, hidden: NDArray[np.bool_]) -> float:
    """Root mean square of (filled - X) / sd over the hidden cells."""
    deviations = ((filled - X) / X.std(axis=0))[hidden]
    return float(np.sqrt(np.mean(deviations ** 2)))


def errors(X: Table, fraction: float, seeds: int) -> dict[str, list[float]]:
    """The error of each imputer for each seed."""
    found: dict[str, list[float]] = {name: [] for name in IMPUTERS}
    for seed in range(seeds):
        hidden = hidden_cells(X, fraction, seed)
        for name, impute in IMPUTERS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)      # of IterativeImputer, in its 10 rounds
                found[name].append(error(impute(np.where(hidden, np.nan, X), seed), X, hidden))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="RMSE of imputed cells, in standard deviations of their columns.")
    parser.add_argument("folder", type=Path, help="a folder with .csv files of numbers")
    parser.add_argument("--tables", nargs="+", default=["wine", "breast_cancer", "diabetes"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--missing", type=float, default=0.3, metavar="FRACTION")
    args = parser.parse_args()
    print(f"{'table':15s}" + "".join(f"{name:>20s}" for name in IMPUTERS))
    for name in args.tables:
        found = errors(table(args.folder / f"{name}.csv"), args.missing, args.seeds)
        print(f"{name:15s}" + "".join(f"{f'{np.mean(values):.3f} +- {np.std(values):.3f}':>20s}"
                                      for values in found.values()), flush=True)


if __name__ == "__main__":
    main()
