"""Exercise 8: Adam, number by number."""
import math

import numpy as np

from .answers import Array, Numbers, Student, agree, pick

LR, BETA1, BETA2, EPS = 0.1, 0.8, 0.9, 0.05      # eps so large that it shows


def numbers(rng: np.random.Generator) -> Numbers:
    return {"GRADIENTS": (pick(rng, (1.0, 2.0, 3.0, 4.0)), pick(rng, (-1.5, -1.0, 0.5, 1.5)))}


def _replay(theta: float, gradients: list[float], slip: str = "") -> tuple[float, float, float]:
    """One parameter through Algorithm 1 of Kingma and Ba (2015), with a slip."""
    m = v = 0.0
    b1, b2 = (BETA2, BETA1) if slip == "beta1 and beta2 are exchanged" else (BETA1, BETA2)
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 if slip == "1 - beta1 is missing" else 1 - b1) * g
        v = b2 * v + (1 if slip == "1 - beta2 is missing" else 1 - b2) * (abs(g) if slip == "|g| for g^2" else g * g)
        power = {"the correction is without its power of t": 1, "t is counted one too far": t + 1}.get(slip, t)
        c1, c2 = 1 - b1 ** power, 1 - b2 ** power
        if slip in ("the bias of m is not corrected", "neither bias is corrected"):
            c1 = 1
        if slip in ("the bias of v is not corrected", "neither bias is corrected"):
            c2 = 1
        if slip == "multiplied by the corrections, not divided":
            c1, c2 = 1 / c1, 1 / c2
        root = math.sqrt(v / c2 + EPS) if slip == "eps is under the root" else (
            v / c2 + EPS if slip == "the root is missing" else math.sqrt(v / c2) + EPS)
        theta += (1 if slip == "uphill: the step is added" else -1) * LR * m / c1 / root
    return theta, m, v


SLIPS = ("the bias of m is not corrected", "the bias of v is not corrected", "neither bias is corrected",
         "multiplied by the corrections, not divided", "the correction is without its power of t",
         "t is counted one too far", "eps is under the root", "the root is missing", "uphill: the step is added",
         "beta1 and beta2 are exchanged", "1 - beta1 is missing", "1 - beta2 is missing", "|g| for g^2")


def _all(start: Array, gradients: list[Array], slip: str = "") -> tuple[Array, Array, Array]:
    rows = [_replay(float(theta), [float(g.flat[i]) for g in gradients], slip) for i, theta in enumerate(start.flat)]
    theta, m, v = (np.array(column).reshape(start.shape) for column in zip(*rows))
    return theta, m, v


def adam_step(s: Student, rng: np.random.Generator) -> None:
    start = theta = rng.standard_normal((2, 3))
    m, v = np.zeros((2, 3)), np.zeros((2, 3))
    gradients: list[Array] = []
    for t in range(1, 4):
        gradients.append(rng.standard_normal((2, 3)))
        got = s.arrays("adam_step", {"theta": (2, 3), "m": (2, 3), "v": (2, 3)}, theta, gradients[-1], m, v, t, LR,
                       BETA1, BETA2, EPS)
        want, with_slip = _all(start, gradients), {slip: _all(start, gradients, slip) for slip in SLIPS}
        for i in (1, 2, 0):
            name = ("theta", "m", "v")[i]
            slips = {slip: found[i] for slip, found in with_slip.items()}
            agree(f"{name} after step {t}", got[name], want[i], slips=slips,
                  parts={"theta before the step": theta} if i == 0 else None)
        theta, m, v = got["theta"], got["m"], got["v"]


def two_steps(s: Student, rng: np.random.Generator) -> None:
    g1, g2 = s.numbers["GRADIENTS"]      # type: ignore[misc]
    got = s.arrays("two_steps", {"step 1": (), "step 2": ()})
    m, v = 0.0, 0.0
    for t, g in enumerate((g1, g2), 1):
        m, v = 0.5 * m + 0.5 * g, 0.75 * v + 0.25 * g * g
        m_hat, v_hat = m / (1 - 0.5 ** t), v / (1 - 0.75 ** t)
        agree(f"step {t}", got[f"step {t}"], -m_hat / math.sqrt(v_hat), tolerance=1e-4, slips={
            "neither bias is corrected": -m / math.sqrt(v), "the bias of m is not corrected": -m / math.sqrt(v_hat),
            "the bias of v is not corrected": -m_hat / math.sqrt(v), "the root is missing": -m_hat / v_hat,
            "this is a step of gradient descent": -g})


def cosine_lr(s: Student, rng: np.random.Generator) -> None:
    for t in (0, 50, 13, 37, 49, 80):
        angle = math.pi * t / 50
        agree(f"the learning rate at step {t} of 50", s.array("cosine_lr", (), t, 0.2, 50),
              0.0 if t >= 50 else 0.1 * (1 + math.cos(angle)), slips={
                  "it rises again after the last step": 0.1 * (1 + math.cos(angle)),
                  "a cosine that falls below zero": 0.2 * math.cos(angle),
                  "a quarter of a cosine, not half a period": 0.2 * math.cos(angle / 2),
                  "it starts at zero and rises": 0.1 * (1 - math.cos(angle)),
                  "a straight line": 0.2 * (1 - t / 50), "lr is not halved": 0.2 * (1 + math.cos(angle))})


def amsgrad_step(s: Student, rng: np.random.Generator) -> None:
    theta, m, v, largest = rng.standard_normal((2, 3)), *(np.zeros((2, 3)) for _ in range(3))
    names = ("theta", "m", "v", "largest")
    for t, size in enumerate((3.0, 0.1, 1.0), 1):
        g = size * rng.standard_normal((2, 3))
        got = s.arrays("amsgrad_step", {name: (2, 3) for name in names}, theta, g, m, v, largest, LR, BETA1, BETA2, EPS)
        new_m, new_v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        top = np.maximum(largest, new_v)
        agree(f"m after step {t}", got["m"], new_m)
        agree(f"v after step {t}", got["v"], new_v, slips={"the largest v is stored as v": top})
        agree(f"largest after step {t}", got["largest"], top, slips={
            "one number for all entries": np.full((2, 3), max(largest.max(), new_v.max())),
            "this is v: a smaller v must not replace a larger one": new_v,
            "the smaller one": np.minimum(largest, new_v)})
        agree(f"theta after step {t}", got["theta"], theta - LR * new_m / (np.sqrt(top) + EPS), slips={
            "divided by the root of v, not of the largest v": theta - LR * new_m / (np.sqrt(new_v) + EPS),
            "divided by the root of the largest v before this step": theta - LR * new_m / (np.sqrt(largest) + EPS),
            "with Adam's corrections":
                theta - LR * new_m / (1 - BETA1 ** t) / (np.sqrt(top / (1 - BETA2 ** t)) + EPS),
            "uphill: the step is added": theta + LR * new_m / (np.sqrt(top) + EPS)})
        theta, m, v, largest = got["theta"], got["m"], got["v"], got["largest"]
