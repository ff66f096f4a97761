"""Likelihoods p(x|z): what the decoder's output means.  Read after `layers.py`.

    support                which numbers a likelihood takes; what an array of data means
    base                   the class to subclass
    bernoulli              binary pixels
    gaussian               real numbers: one sigma, or one for each pixel
    continuous_bernoulli   grey pixels in [0, 1], as a density
    levels                 the 256 levels of a byte, as probabilities
    columns                the columns of a table, and the families that fit them
"""
import math
from collections.abc import Callable

from ..validate import choice, shown
from .base import Likelihood
from .bernoulli import Bernoulli
from .continuous_bernoulli import ContinuousBernoulli
from .gaussian import Gaussian, GaussianOptimal, GaussianPixel
from .levels import BetaBinomial, Categorical, DiscretizedLogistic

#: By name.  A sigma may follow the first two Gaussians, as in "gaussian:0.2", and a number of levels "categorical".
LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli, "gaussian": Gaussian, "gaussian-learned": lambda: Gaussian(learned=True),
    "gaussian-pixel": GaussianPixel, "gaussian-optimal": GaussianOptimal, "continuous-bernoulli": ContinuousBernoulli,
    "discretized-logistic": DiscretizedLogistic, "categorical": Categorical, "beta-binomial": BetaBinomial}


def make_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of that name, or the object itself.  Raises ValueError or TypeError with the known names."""
    if not isinstance(likelihood, str):
        if not isinstance(likelihood, Likelihood):
            raise TypeError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, or an object of class Likelihood, "
                            f"got {shown(likelihood)}")
        return likelihood
    name, colon, number = likelihood.partition(":")
    if colon and name == "categorical":
        if not number.isdecimal() or int(number) < 2:
            raise ValueError(f"likelihood {shown(likelihood)}: the number of levels must be a whole number from 2 on")
        return Categorical(int(number))
    if not colon or name not in ("gaussian", "gaussian-learned"):
        return LIKELIHOODS[choice("likelihood", likelihood, LIKELIHOODS)]()
    try:
        sigma = float(number)
    except ValueError:
        sigma = math.nan
    try:
        return Gaussian(sigma, learned=name == "gaussian-learned")
    except ValueError as error:
        raise ValueError(f"likelihood {shown(likelihood)}: {error}") from None


find = make_likelihood      # its former name

__all__ = [
    "LIKELIHOODS", "Likelihood", "make_likelihood", "find",
    "Bernoulli", "BetaBinomial", "Categorical", "ContinuousBernoulli", "DiscretizedLogistic", "Gaussian",
    "GaussianOptimal", "GaussianPixel"]
