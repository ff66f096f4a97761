"""What a decoder's last step refuses, each in one line and before anything is changed."""
import numpy as np
import pytest

from npvae import VAE, fit
from strategies import IMAGES


@pytest.mark.parametrize("call", [
    lambda vae, x: vae.elbo(x, np.random.default_rng(0)), lambda vae, x: vae.loss_and_gradients(x, np.ones((3, 1, 20))),
    lambda vae, x: fit(vae, x, x, batch_size=2), lambda vae, x: fit(vae, np.uint8(255 * x), np.uint8(x), batch_size=2)])
def test_greys_are_refused_in_one_line(call):
    vae = VAE(4, (3,), decoder="made:5")
    before = vae.parameters.flat.copy()
    with pytest.raises(ValueError, match="^[a-z_]+ must be black and white for a decoder made:H.*, found (0.5|127) "):
        call(vae, np.array([[0, 1, 1, 0], [0, 1, 0.5, 1], [1, 1, 1, 1]]))
    assert np.array_equal(before, vae.parameters.flat)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int64, np.float16])
def test_zeros_and_ones_of_any_type_are_black_and_white(dtype):
    vae, x = VAE(4, (3,), decoder="made:5"), np.array([[0, 1, 1, 0]])
    assert vae.elbo(x.astype(dtype), np.random.default_rng(0)) == vae.elbo(x * 1.0, np.random.default_rng(0))


@pytest.mark.parametrize("decoder", ["made", "made:", "made:0", "made:-3", "made:4.5", "made:4+", "Made:4", "made:4 ",
                                     "dens", "", 4, None])
def test_an_unknown_decoder_is_refused_in_one_line(decoder):
    says = r"^decoder must be dense, made:H or made:H\+direct, or an object of class Decoder"
    with pytest.raises(ValueError, match=says) as caught:
        VAE(6, decoder=decoder)
    assert str(caught.value).endswith(f"got {decoder!r}") and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("likelihood", [name for name in IMAGES if name != "bernoulli"])
def test_other_likelihoods_are_refused_in_one_line(likelihood):
    with pytest.raises(ValueError, match="^decoder made:4 needs likelihood bernoulli, got .*: use decoder dense$"):
        VAE(6, decoder="made:4", likelihood=likelihood)
