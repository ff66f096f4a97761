"""How large a model is, said before any of it is made."""
import pytest
from hypothesis import given, strategies as st

from npvae import VAE
from npvae.model import sizes
from npvae.likelihoods import LIKELIHOODS, make_likelihood

WIDTHS = st.lists(st.integers(1, 5), max_size=3)
NINES = "9" * 30


@given(st.integers(1, 7), WIDTHS, st.integers(1, 4), st.none() | WIDTHS,
       st.sampled_from([*LIKELIHOODS, "categorical:3"]),
       st.sampled_from(["normal", "mixture:3", "vamp:4", "hierarchical:2", "hierarchical:5,4,2"]),
       st.sampled_from(["gaussian", "planar:1", "planar:3", "iaf:2", "iaf:3:7"]),
       st.sampled_from(["dense", "made:5", "made:6+direct"]), st.integers(0, 3))
def test_the_number_of_parameters(D, hidden, Z, decoder_hidden, likelihood, prior, posterior, decoder, classes):
    likelihood = "bernoulli" if decoder != "dense" else likelihood
    if prior.startswith("vamp"):      # fits neither of the two
        posterior, classes = "gaussian", 0
    vae = VAE(D, hidden, Z, "tanh", likelihood, "float32", "numpy", 0, decoder_hidden, prior, posterior, decoder,
              classes)
    assert vae.parameters.flat.size == sizes.count_parameters(
        D, hidden, Z, vae.decoder_hidden, make_likelihood(likelihood), prior, posterior, decoder, classes)


@pytest.mark.parametrize("config", [
    {"posterior": f"iaf:2:{NINES}"}, {"prior": f"mixture:{NINES}"}, {"prior": f"vamp:{NINES}"},
    {"prior": f"hierarchical:{NINES}"}, {"prior": f"hierarchical:{NINES},2"}, {"decoder": f"made:{NINES}"},
    {"likelihood": f"categorical:{NINES}"}, {"input_dim": 10 ** 400}, {"latent_dim": 10 ** 12},
    {"hidden": (10 ** 6, 10 ** 6)}, {"decoder_hidden": (10 ** 20,)}, {"classes": 10 ** 15},
    {"posterior": "iaf:1000:1000000000"}])
def test_what_no_memory_holds_is_refused_before_any_is_taken(config):
    with pytest.raises(MemoryError, match="a model of .* parameters does not fit into the .* GB of this machine"):
        VAE(**config, kernels="numpy")


@pytest.mark.parametrize("name", [f"iaf:{NINES}", f"planar:{NINES}", "iaf:1001"])
def test_endless_flows(name):
    with pytest.raises(ValueError, match=f"posterior '{name}': at most 1,000 steps are allowed"):
        VAE(posterior=name, kernels="numpy")


def test_a_machine_that_does_not_say_how_much_it_has(monkeypatch):
    monkeypatch.delattr(sizes.os, "sysconf")
    assert sizes.memory() > 2 ** 60
    sizes.check_memory(10 ** 12, 4)
