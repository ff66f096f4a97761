"""What the tests draw, under the names they use: `npvae.testing` says how, and why so."""
from functools import partial

from npvae import testing
from npvae.likelihoods import LIKELIHOODS as ALL, OfCells, make_likelihood

seeds = testing.seeds()
sizes = testing.shapes      # one size for each letter, pairwise distinct
spread = partial(testing.spread, most=3.0)      # for the kernels, which see no product of it
#: of images, by name; and, for counts, tables and other data, those whose kernels give cells
IMAGES = [name for name in ALL if not isinstance(make_likelihood(name), OfCells)]
OF_CELLS = [name for name in ALL if name not in IMAGES]
LIKELIHOODS = [name for name in testing.small_likelihoods() if name not in OF_CELLS]      # the softmax over 4 levels
