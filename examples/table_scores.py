"""log p(x) of held-out rows of tables, beside simple densities.

    python examples/table_scores.py FOLDER/wine.csv FOLDER/penguins.csv --seeds 3

For each table it prints, in nats a row of the test set: independent columns, each with the family that `npvae train`
finds for it; a Gaussian with a full covariance matrix for the numbers, beside independent categories; and the VAE that
`npvae train` makes with its own settings for a table.  All three are fitted by maximum likelihood to the same rows.
"""
import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

from npvae.cli import program
from npvae.cli.runs import load_images, open_run
from npvae.likelihoods.columns import Column

LOG_2PI = float(np.log(2 * np.pi))


def independent(column: Column, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """log p (M,) of one column's test cells under the best distribution for its training cells; 0 where missing.  A
    level that the training rows lack counts as half a row.  A count is taken for a Gaussian."""
    seen, log_p = train[~np.isnan(train)], np.zeros(len(test))
    known = ~np.isnan(test)
    if column.levels:
        counts = np.bincount(seen.astype(int), minlength=len(column.levels))
        log_p[known] = np.log(np.maximum(counts, 0.5) / len(seen))[test[known].astype(int)]
        return log_p
    logs = column.kind == "positive"
    seen, t = (np.log(seen), np.log(test[known])) if logs else (seen, test[known])
    u = (t - seen.mean()) / seen.std()
    log_p[known] = -0.5 * u * u - np.log(seen.std()) - 0.5 * LOG_2PI - (t if logs else 0)
    return log_p


def full_covariance(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """log p (M,) of the observed numbers of test rows under one Gaussian, fitted to the complete training rows."""
    complete = train[~np.isnan(train).any(axis=1)]
    mean, covariance = complete.mean(axis=0), np.atleast_2d(np.cov(complete.T, bias=True))
    log_p = np.zeros(len(test))
    for i, row in enumerate(test):
        known = ~np.isnan(row)
        r, part = row[known] - mean[known], covariance[np.ix_(known, known)]
        log_p[i] = -0.5 * (r @ np.linalg.solve(part, r) + np.linalg.slogdet(part)[1] + known.sum() * LOG_2PI)
    return log_p


def scores(path: Path, seed: int, samples: int = 500) -> dict[str, float]:
    """The three means, in nats a row; seed: of the VAE."""
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            program.main(["train", "--data-dir", str(path), "--likelihood", "table", "--seed", str(seed), "--quiet",
                          "--threads", "1", "--out", f"{folder}/run"])
        run = open_run(Path(folder) / "run")
    data = load_images(run.args, quiet=True)
    train, test = data.train_images.astype(float), data.test_images.astype(float)
    each = np.stack([independent(column, *cells) for column, cells in zip(data.columns, zip(train.T, test.T))], axis=1)
    coded = np.array([bool(column.levels) for column in data.columns])
    joint = full_covariance(train[:, ~coded], test[:, ~coded]) + each[:, coded].sum(axis=1)
    log_p = run.vae.log_likelihood(data.test_images, np.random.default_rng(0), samples)
    return {"independent": float(each.sum(axis=1).mean()), "full covariance": float(joint.mean()),
            "VAE": float(log_p.mean())}


def main() -> None:
    """Print a line for each table and seed."""
    parser = argparse.ArgumentParser(description="log p(x) of held-out rows of tables, beside simple densities")
    parser.add_argument("tables", type=Path, nargs="+", metavar="FILE", help="a .csv with a header")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each table")
    args = parser.parse_args()
    print(f"{'table':20s} {'seed':>4s} {'independent':>12s} {'full covariance':>16s} {'VAE':>8s}")
    for path in args.tables:
        for seed in range(args.seeds):
            found = scores(path, seed)
            print(f"{path.stem:20s} {seed:4d} {found['independent']:12.2f} {found['full covariance']:16.2f} "
                  f"{found['VAE']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
