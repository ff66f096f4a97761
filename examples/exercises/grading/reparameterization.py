"""Exercise 6: draws have the distribution they claim; estimators have the right mean."""
import numpy as np

from .answers import Arrays, Numbers, Student, Wrong, agree, agree_on_gradients, normal_average, pick


def numbers(rng: np.random.Generator) -> Numbers:
    return {"MU": pick(rng, (-1.5, -1.2, 0.8, 1.5, 2.0)), "SIGMA": pick(rng, (0.4, 0.6, 0.8, 1.25))}


def reparameterize(s: Student, rng: np.random.Generator) -> None:
    mu, logvar = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    nodes, weights = normal_average()
    z = np.stack([s.array("reparameterize", (4, 3), mu, logvar, np.full((4, 3), eps)) for eps in nodes])
    mean = np.tensordot(weights, z, 1)
    agree("the mean of z over its noise", mean, mu, slips={"it is zero: mu is missing": 0.0})
    variance = np.tensordot(weights, z ** 2, 1) - mean ** 2
    agree("the variance of z over its noise", variance, np.exp(logvar), slips={
        "exp(logvar) is taken for sigma: it is the variance": np.exp(2 * logvar), "sigma is missing": 1.0,
        "logvar is taken for sigma": logvar ** 2, "z does not depend on eps": 0.0,
        "eps is divided by sigma, not multiplied": np.exp(-logvar), "the variance is sigma": np.exp(logvar / 2)})
    eps = rng.standard_normal((4, 3))
    agree("z", s.array("reparameterize", (4, 3), mu, logvar, eps), mu + np.exp(logvar / 2) * eps, slips={
        "eps has the wrong sign: the distribution is right, the gradient of exercise 7 is not":
            mu - np.exp(logvar / 2) * eps})


def reparameterize_backward(s: Student, rng: np.random.Generator) -> None:
    mu, logvar, eps, dz = (rng.standard_normal((4, 3)) for _ in range(4))

    def loss(p: Arrays) -> complex:
        result: complex = (dz * (p["mu"] + np.exp(p["logvar"] / 2) * eps)).sum()
        return result

    sigma = np.exp(logvar / 2)
    agree_on_gradients(
        s.arrays("reparameterize_backward", {"dmu": (4, 3), "dlogvar": (4, 3)}, dz, logvar, eps), loss,
        {"mu": mu, "logvar": logvar}, {"B": 4.0, "Z": 3.0}, slips={
            "mu": {"dz is not used": 1.0, "multiplied by mu's own value": dz * mu, "this is dlogvar":
                   dz * eps * sigma / 2},
            "logvar": {"eps is missing": dz * sigma / 2, "this is the gradient of sigma": dz * eps,
                       "sigma is missing": dz * eps / 2, "dz is not used": eps * sigma / 2,
                       "the variance stands where sigma should": dz * eps * np.exp(logvar) / 2}})


def score_estimates(s: Student, rng: np.random.Generator) -> None:
    mu, logvar = float(rng.normal(0, 1)), float(rng.uniform(-1.5, -0.5))
    sigma = np.exp(logvar / 2)
    nodes, weights = normal_average()
    z = mu + sigma * nodes
    f = z ** 3 - 2 * z ** 2
    got = s.array("score_estimates", z.shape, f, z, mu, logvar)
    derivative = 3 * mu ** 2 + 3 * sigma ** 2 - 4 * mu      # of E[z^3] - 2 E[z^2], from the moments of a normal
    slips = {"divided by sigma: the score has its square": f * (z - mu) / sigma, "f is missing": (z - mu) / sigma ** 2,
             "not divided by the variance": f * (z - mu), "z stands where z - mu should": f * z / sigma ** 2,
             "divided by the square of the variance": f * (z - mu) / sigma ** 4}
    agree("an estimate", got, f * (z - mu) / sigma ** 2, slips=slips)
    agree("the mean of the estimates", np.array(weights @ got), derivative)


def variances(s: Student, rng: np.random.Generator) -> None:
    mu, sigma = s.number("MU"), s.number("SIGMA")
    nodes, weights = normal_average()
    z = mu + sigma * nodes
    score, slope = z ** 2 * nodes / sigma, 2 * z
    got = s.arrays("variances", {"the score-function estimate": (), "the reparameterized estimate": ()})
    for name, single in (("the score-function estimate", score), ("the reparameterized estimate", slope)):
        mean, square = float(weights @ single), float(weights @ single ** 2)
        other = slope if single is score else score
        agree(f"the variance of {name}", got[name], square - mean ** 2, tolerance=1e-6, slips={
            "this is its mean square: the square of the mean is to be subtracted": square,
            "this is its deviation": np.sqrt(square - mean ** 2),
            "this is the variance of the other one": float(weights @ other ** 2) - mean ** 2,
            "multiplied by eps, not by the score eps / sigma": sigma ** 2 * square - mean ** 2,
            "this is the variance of z": sigma ** 2})


def exponential_draw(s: Student, rng: np.random.Generator) -> None:
    rate = float(rng.uniform(1.5, 3))
    u = (np.arange(2000) + 0.5) / 2000
    try:
        s.array("exponential_draw", (1,), np.array([0.0]), rate)
    except Wrong as wrong:
        raise Wrong(f"at u = 0, which a generator can return: {wrong}") from None
    z = s.array("exponential_draw", u.shape, u, rate)
    if np.all(z > 0):      # P(z <= t) = 1 - e^(-rate t): the share of draws below each, whatever their order
        chance, share = 1 - np.exp(-rate * np.sort(z)), u
        if np.max(np.abs(chance - share)) < 1e-6 and np.max(np.abs(z - np.sort(z))) > 1e-9:
            raise Wrong("the distribution is right, but z falls as u grows: use 1 - u")
    agree("z", z, -np.log(1 - u) / rate, slips={
        "multiplied by the rate: the mean should be 1 / rate": -np.log(1 - u) * rate,
        "the rate is missing": -np.log(1 - u), "the sign is wrong: z is positive": np.log(1 - u) / rate,
        "this is the distribution function, not its inverse": 1 - np.exp(-rate * u),
        "this is the density": rate * np.exp(-rate * u)})


def exponential_backward(s: Student, rng: np.random.Generator) -> None:
    u, dz, rate = rng.random(6), rng.standard_normal(6), np.array(rng.uniform(1.5, 3))

    def loss(p: Arrays) -> complex:
        result: complex = (dz * -np.log(1 - u) / p["rate"]).sum()
        return result

    z, r = -np.log(1 - u) / rate, float(rate)
    agree_on_gradients({"drate": s.array("exponential_backward", (), dz, u, r)}, loss, {"rate": rate}, {"N": 6.0},
                       slips={"rate": {"a division by the rate is missing": -(dz * z).sum(),
                                       "dz is not used": -z.sum() / rate, "u stands where z should":
                                       -(dz * u).sum() / rate, "divided by the rate once too often":
                                       -(dz * z).sum() / rate ** 2}})
