"""Bits back: every kind of model gives its images back, at the price of its bound."""
import numpy as np
import pytest

from coded_models import images, model
from npvae.compression.chain import Chain
from npvae.compression.coder import Stack
from npvae.compression.latents import Bins, Gaussian
from npvae.likelihoods.categories import Categories, Ordinal
from npvae.likelihoods.columns import Column
from npvae.likelihoods.counts import Multinomial, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from npvae.likelihoods.levels import Categorical
from npvae.likelihoods.table import Table

pytest.importorskip("constriction")
LIKELIHOODS = ["bernoulli", "discretized-logistic", "beta-binomial", Categorical(5), Poisson(),
               NegativeBinomial("column"), NegativeBinomial("shared"), ZeroInflatedNegativeBinomial("decoder"),
               Categories(4), Ordinal([2, 3, 5] * 4)]
PRIORS = ["normal", "mixture:4", "vamp:5", "hierarchical:6,2"]


def coded(vae, x):
    """The chain for images x, and their levels."""
    most = 0 if vae.likelihood.support.pixels else int(x.max())
    levels = np.rint(x * Chain(vae, Bins(8, 4), most).cells.steps).astype(np.int64)
    return Chain(vae, None, most, levels), levels


@pytest.mark.parametrize("likelihood, prior", [*((one, "normal") for one in LIKELIHOODS),
                                               *(("bernoulli", one) for one in PRIORS[1:])])
def test_images_come_back_for_minus_their_elbo(likelihood, prior, decoder="dense"):
    """The mean of many images, of which the first ones cost more."""
    vae = model(likelihood=likelihood, prior=prior, decoder=decoder)
    x = images(vae, 300)
    chain, levels = coded(vae, x)
    words = chain.push(levels)
    assert (chain.pop(words, len(levels)) == levels).all()
    bounds = [-vae.elbo(x, np.random.default_rng(i)).mean() / np.log(2) for i in range(8)]
    assert abs(32 * len(words) / len(x) - np.mean(bounds)) < 0.01 * np.mean(bounds) + 4 * np.std(bounds)


@pytest.mark.parametrize("decoder", ["made:7", "made:30+direct"])
def test_images_of_a_made_decoder(decoder):
    test_images_come_back_for_minus_their_elbo("bernoulli", "normal", decoder=decoder)


COLUMNS = [Column("a", "poisson", location=1, scale=0.5), Column("b", "categorical", ("x", "y", "z")),
           Column("c", "bernoulli", ("no", "yes"), 0.4, 0.5), Column("d", "negative-binomial", location=1, scale=0.6),
           Column("e", "ordinal", ("low", "some", "more", "high"))]


def test_rows_of_a_table_come_back_for_minus_their_elbo():
    vae = model(likelihood=Table(COLUMNS), input_dim=5)
    x = images(vae, 300)
    chain, levels = coded(vae, x)
    words = chain.push(levels)
    assert (chain.pop(words, len(x)) == levels).all() and levels.max() > 3
    bounds = [-vae.elbo(x, np.random.default_rng(i)).mean() / np.log(2) for i in range(8)]
    assert abs(32 * len(words) / len(x) - np.mean(bounds)) < 0.02 * np.mean(bounds) + 4 * np.std(bounds)
    with pytest.raises(ValueError, match="a table with real numbers cannot be compressed with, as column 'h'"):
        Chain(model(likelihood=Table([*COLUMNS, Column("h", "gaussian")]), input_dim=6), Bins(8, 4))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_batch_costs_what_its_densities_say(prior):
    """log2 of q(z|x) / (p(x|z) p(z)) at the z that the stack gave, here with densities in place of bins."""
    vae = model(prior=prior, dtype="float64")
    levels = images(vae, 256).astype(np.int64)
    chain, stack = Chain(vae, Bins(12, 7)), Stack(np.random.default_rng(0).integers(0, 2**32, 900, dtype=np.uint32))
    q, before = chain.posterior(levels), stack.bits
    copy = Stack(stack.words())
    z = chain.bins.z(chain.bins.pop(copy, q.mean.shape, q))
    chain.push_batch(stack, levels, q)
    grown = stack.bits - before
    assert (chain.pop_batch(stack, len(levels)) == levels).all() and stack.bits == before
    estimator, expected, rng = next(one for one in vae.estimators if one.is_sampled), [], np.random.default_rng(1)
    for _ in range(20):      # draws of z2, which the stack has drawn once
        a, _ = vae.passes(len(levels), 1)
        a.x[...], a.eps[:, 0], a.eps_prior[...] = levels, (z - q.mean) * q.rate, rng.standard_normal(a.eps_prior.shape)
        vae.engine.forward(a, estimator)
        expected.append((a.nll + a.log_ratio).sum() / np.log(2))
    assert abs(grown - np.mean(expected)) < 3 + 3 * np.std(expected)


def test_the_first_image_is_cheap_and_the_chain_recovers():
    """Without bits to choose z with, every image would cost some 80 bits more: those of a z of 8 numbers, in bins
    of 1/256."""
    vae = model(latent_dim=8)
    x = images(vae, 600)
    chain, bound = Chain(vae, Bins(12, 8)), -vae.elbo(x, np.random.default_rng(0)).mean() / np.log(2)
    first, all_of_them = (32 * len(chain.push(x[:n].astype(np.int64))) for n in (1, 600))
    assert bound + 64 < first < bound + 160 and all_of_them < 600 * bound + 2000


@pytest.mark.parametrize("n", range(6))
def test_few_images(n):
    vae = model()
    levels = images(vae, 6)[:n].astype(np.int64)
    chain, _ = coded(vae, images(vae, 6))
    assert (chain.pop(chain.push(levels), n) == levels).all()


def test_z_outside_of_the_bins_costs_bits_and_no_image():
    vae = model()
    vae.parameters["mu.b"][...] = 50
    levels = images(vae, 40).astype(np.int64)
    for bins in (Bins(6, 4), None):
        chain = Chain(vae, bins, levels=levels)
        assert (chain.pop(chain.push(levels), 40) == levels).all()


def test_bins_fit_the_model():
    vae = model(spread=0)
    vae.parameters["logvar.b"][...] = 2 * np.log(0.01)
    vae.parameters["mu.b"][...] = 20
    bins = Chain(vae, levels=np.zeros((10, 12), np.int64)).bins
    assert 0.0025 <= bins.z(np.array(1)) - bins.z(np.array(0)) <= 0.005
    assert 20 < -bins.z(np.array(0)) <= 64


def test_the_bins_of_a_gaussian_share_out_its_probability():
    bins, q = Bins(7, 3), Gaussian(np.array([0.4, -7.9, 30.0]), np.array([1.0, 2.0, 0.5]))
    below = np.array([bins.below(q)(np.full(3, k)) for k in range(1, 128)])
    assert (np.diff(below, axis=0) >= 0).all()
    centre = (bins.z(np.arange(1, 127))[:, None] * np.diff(below, axis=0)).sum(axis=0)
    assert abs(centre[0] - 0.4) < 1e-3


@pytest.mark.parametrize("config, says", [
    ({"likelihood": "gaussian"}, "likelihood gaussian cannot be compressed with: it gives no probabilities"),
    ({"likelihood": "continuous-bernoulli"}, "likelihood continuous-bernoulli cannot"),
    ({"posterior": "planar:2"}, "posterior planar:2 cannot be compressed with: a flow moves the bins"),
    ({"posterior": "iaf:2:6"}, "posterior iaf:2:6 cannot"),
    ({"likelihood": Poisson(size=True)}, "likelihood poisson:size cannot be compressed with: the total of each row"),
    ({"likelihood": Multinomial()}, "likelihood multinomial cannot"),
    ({"classes": 3}, "a conditional model cannot"),
    ({"missing": True}, "a model of missing cells cannot")])
def test_what_is_not_exact_is_refused(config, says):
    with pytest.raises(ValueError, match=says):
        Chain(model(**config), Bins(8, 4))
