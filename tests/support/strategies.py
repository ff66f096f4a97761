"""What the tests draw, under the names they use: `npvae.testing` says how, and why so."""
from functools import partial

from npvae import testing

seeds = testing.seeds()
sizes = testing.shapes      # one size for each letter, pairwise distinct
spread = partial(testing.spread, most=3.0)      # for the kernels, which see no product of it
LIKELIHOODS = testing.small_likelihoods()      # all of them, the softmax over 4 levels
