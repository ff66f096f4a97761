"""Likelihoods p(x|z): what the decoder's output means.  Read after `layers.py`.

    support                which numbers a likelihood takes; what an array of data means
    base                   the class to subclass
    bernoulli              binary pixels
    gaussian               real numbers: one sigma, or one for each pixel
    continuous_bernoulli   grey pixels in [0, 1], as a density
    levels                 the 256 levels of a byte, as probabilities
    own                    parameters of a likelihood's own, for each column or for all
    counts                 0, 1, 2, ...: Poisson, negative binomial, multinomial
    reals                  numbers of any unit: Student's t, Laplace, log-normal
    categories             codes 0 ... L - 1, with an order or without
    columns                the columns of a table, and the families that fit them
    table                  a family for each column
"""
import math
from collections.abc import Callable, Mapping
from typing import Any

from ..validate import choice, shown
from .base import Likelihood, OfCells
from .bernoulli import Bernoulli
from .categories import Categories, Ordinal
from .continuous_bernoulli import ContinuousBernoulli
from .counts import Multinomial, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from .gaussian import Gaussian, GaussianOptimal, GaussianPixel
from .levels import BetaBinomial, Categorical, DiscretizedLogistic
from .own import COLUMN, DECODER, SHARED, words_of
from .reals import Laplace, LogNormal, StudentT
from .table import Table, table_of_config

#: By name.  More may follow some of them, after a colon, as in "gaussian:0.2": see `OPTIONS`.
LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli, "gaussian": Gaussian, "gaussian-learned": lambda: Gaussian(learned=True),
    "gaussian-pixel": GaussianPixel, "gaussian-optimal": GaussianOptimal, "continuous-bernoulli": ContinuousBernoulli,
    "discretized-logistic": DiscretizedLogistic, "categorical": Categorical, "beta-binomial": BetaBinomial,
    "poisson": Poisson, "negative-binomial": NegativeBinomial,
    "zero-inflated-negative-binomial": ZeroInflatedNegativeBinomial, "multinomial": Multinomial,
    "student-t": StudentT, "laplace": Laplace, "log-normal": LogNormal,
    "ordinal": Ordinal, "categories": Categories}


def _gaussian(text: str, learned: bool = False) -> Likelihood:
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    return Gaussian(sigma, learned)


def _categorical(text: str) -> Likelihood:
    if not text.isdecimal() or int(text) < 2:
        raise ValueError("the number of levels must be a whole number from 2 on")
    return Categorical(int(text))


def _poisson(text: str) -> Likelihood:
    return Poisson(words_of(text, ["size"]) == ["size"])


def _negative_binomial(text: str, family: type[NegativeBinomial] = NegativeBinomial) -> Likelihood:
    dispersion, size = words_of(text, [COLUMN, SHARED, DECODER], ["size"])
    return family(dispersion or COLUMN, size is not None)


def _student_t(text: str) -> Likelihood:
    number, _, scale = text.partition("+")
    try:
        df = float(number)
    except ValueError:
        return StudentT(None, words_of(text, [COLUMN, SHARED])[0] or COLUMN)
    return StudentT(df, words_of(scale, [COLUMN, SHARED])[0] or COLUMN if scale else COLUMN)


def _scaled(text: str, family: type[Laplace] | type[LogNormal]) -> Likelihood:
    return family(words_of(text, [COLUMN, SHARED])[0] or COLUMN)


def _codes(text: str, family: type[Ordinal] | type[Categories]) -> Likelihood:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) > 1 for number in numbers):
        raise ValueError("the number of levels must be a whole number from 2 on, or one for each column, as in 3,5,2")
    levels = [int(number) for number in numbers]
    return family(levels if len(levels) > 1 else levels[0])


#: name -> the likelihood from what follows its colon
OPTIONS: dict[str, Callable[[str], Likelihood]] = {
    "gaussian": _gaussian, "gaussian-learned": lambda text: _gaussian(text, True), "categorical": _categorical,
    "poisson": _poisson, "negative-binomial": _negative_binomial,
    "zero-inflated-negative-binomial": lambda text: _negative_binomial(text, ZeroInflatedNegativeBinomial),
    "student-t": _student_t, "laplace": lambda text: _scaled(text, Laplace),
    "log-normal": lambda text: _scaled(text, LogNormal),
    "ordinal": lambda text: _codes(text, Ordinal), "categories": lambda text: _codes(text, Categories)}


def make_likelihood(likelihood: str | Likelihood | Mapping[str, Any]) -> Likelihood:
    """The likelihood of that name, or of `Likelihood.config`, or the object itself.  Raises ValueError or TypeError
    with the known names."""
    if isinstance(likelihood, Mapping):
        return table_of_config(likelihood)
    if likelihood == TABLE:
        raise ValueError("likelihood table needs the columns of the data: Table(columns), as npvae.data.load_table "
                         "finds them")
    if not isinstance(likelihood, str):
        if not isinstance(likelihood, Likelihood):
            raise TypeError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, or an object of class Likelihood, "
                            f"got {shown(likelihood)}")
        return likelihood
    name, colon, text = likelihood.partition(":")
    if not colon or name not in OPTIONS:
        return LIKELIHOODS[choice("likelihood", likelihood, LIKELIHOODS)]()
    try:
        return OPTIONS[name](text)
    except ValueError as error:
        raise ValueError(f"likelihood {shown(likelihood)}: {error}") from None


#: the name of `Table`, on the command line
TABLE = "table"
find = make_likelihood      # its former name

__all__ = [
    "LIKELIHOODS", "OPTIONS", "Likelihood", "OfCells", "make_likelihood", "find",
    "Bernoulli", "BetaBinomial", "Categorical", "Categories", "ContinuousBernoulli", "DiscretizedLogistic", "Gaussian",
    "GaussianOptimal", "GaussianPixel", "Laplace", "LogNormal", "Multinomial", "NegativeBinomial", "Ordinal", "Poisson",
    "StudentT", "Table", "ZeroInflatedNegativeBinomial"]
