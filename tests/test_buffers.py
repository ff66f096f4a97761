"""The arrays of a training step: each has its shape and its type, and no two of them share memory but on purpose."""
import itertools
from collections import Counter

import numpy as np
import pytest

from npvae import VAE

B, K, D, Z, (E1, E2), (D1, D2, D3) = 13, 11, 7, 3, (6, 5), (4, 8, 9)
CONFIGS = {"plain": {}, "classes": {"classes": 2}, "two layers": {"prior": "hierarchical:10,1"}, "vamp": {
    "prior": "vamp:15"}}


@pytest.fixture(params=CONFIGS)
def made(request):
    """L, N and the rows of the encoder; the arrays of a step."""
    vae = VAE(D, (E1, E2), Z, decoder_hidden=(D1, D2, D3), likelihood="gaussian-pixel", kernels="numpy",
              **CONFIGS[request.param])
    L, N, more = {"plain": (0, 0, 0), "classes": (2, 0, 0), "two layers": (0, 1, 0), "vamp": (0, 0, 15)}[request.param]
    return L, N, B + more, *vae.passes(B, K)


def test_shapes(made):
    L, N, R, a, d = made
    pre = {"encoder_pre": [(R, E1), (R, E2)], "mu_pre": (R, Z), "logvar_pre": (R, Z), "rows_pre": (B * K, 2 * D),
           "decoder_pre": [(B * K, D1), (B * K, D2), (B * K, D3)]}
    encoder, decoder = [(R, E1), (R, E2)], [(B * K, Z + L), (B * K, D1), (B * K, D2), (B * K, D3)]
    expected = {
        **pre, "x": (B, D), "encoder": [(R, D + L), *encoder], "mu": (R, Z), "logvar": (R, Z), "z": (B, K, Z),
        "z_rows": (B * K, Z), "eps": (B, K, Z), "eps_prior": (B, K, N), "kl": (B, Z), "log_ratio": (B, K),
        "decoder": decoder, "rows": (B * K, 2 * D), "output": (B, K, 2 * D), "kept": (B, K, 2 * D), "nll": (B, K),
        "index": (B,), "labels": (B,)}
    of_gradients = {
        **pre, "h": (R, E2), "h_mu": (R, E2), "h_logvar": (R, E2), "mu": (R, Z), "mu_z": (B, Z), "mu_kl": (B, Z),
        "logvar": (R, Z), "logvar_z": (B, Z), "logvar_kl": (B, Z), "z": (B, K, Z), "z_nll": (B, K, Z),
        "z_rows": (B * K, Z), "z_kl": (B, K, Z), "z_scaled": (B, K, Z), "kl": (B, Z), "log_ratio": (B, K),
        "decoder": decoder, "rows": (B * K, 2 * D), "output": (B, K, 2 * D), "nll": (B, K)}
    for one, shapes in ((a, expected), (d, of_gradients)):
        for name, shape in shapes.items():
            array = getattr(one, name)
            assert ([part.shape for part in array] if isinstance(array, list) else array.shape) == shape, name
    assert [array.shape for array in d.encoder[1:]] == encoder and d.encoder[0] is None and d.h is d.encoder[2]
    numbers = B * K * (Z + N)
    assert a.noise.shape == a.uniform.shape == (numbers + numbers % 2,)      # it is drawn in pairs
    assert {array.dtype for one in (a, d) for name, array in vars(one).items() if isinstance(array, np.ndarray)
            and name not in ("index", "labels")} == {np.dtype("f4")}
    assert a.index.dtype == a.labels.dtype == np.int64 and not a.labels.any()


def test_memory(made):
    """Rows are another look at the same numbers, products of matrices and their gradients take the same place, and
    eps lies before that of the prior; all others are apart."""
    L, N, R, a, d = made
    same = [(a.z, a.z_rows), (a.output, a.rows), (d.z_nll, d.z_rows), (d.output, d.rows), (a.mu_pre, d.mu_pre),
            (a.logvar_pre, d.logvar_pre), (a.rows_pre, d.rows_pre), *zip(a.encoder_pre, d.encoder_pre),
            *zip(a.decoder_pre, d.decoder_pre), (a.noise, a.eps), (a.x, a.encoder[0]), (a.z, a.decoder[0]),
            (d.z_nll, d.decoder[0])]
    assert [np.shares_memory(*pair) for pair in same] == [True] * (len(same) - 3) + [L == 0] * 3
    at = B * K * Z
    assert np.array_equal(np.concatenate([a.eps.ravel(), a.eps_prior.ravel()]), a.noise[:at + B * K * N])
    a.noise[...] = np.arange(a.noise.size)
    assert a.eps.ravel().tolist() == [*range(at)] and a.eps_prior.ravel().tolist() == [*range(at, at + B * K * N)]
    apart = [a.x, *a.encoder[1:], a.mu, a.logvar, a.z, a.noise, a.uniform, a.kl, a.log_ratio, *a.decoder[1:], a.output,
             a.kept, a.nll, *a.encoder_pre, a.mu_pre, a.logvar_pre, *a.decoder_pre, a.rows_pre, *d.encoder[1:], d.h_mu,
             d.h_logvar, d.mu, d.mu_z, d.mu_kl, d.logvar, d.logvar_z, d.logvar_kl, d.z, d.z_nll, d.z_kl, d.z_scaled,
             d.kl, d.log_ratio, *d.decoder[1:], d.output, d.nll,
             *([a.encoder[0], a.decoder[0], d.decoder[0]] if L else [])]
    assert not any(np.may_share_memory(*pair) for pair in itertools.combinations(apart, 2))


def test_a_step_without_hidden_layers_has_no_arrays_for_them():
    """A decoder that needs some besides has its own."""
    a, d = VAE(D, (), Z, kernels="numpy", decoder="made:4").passes(B, K)
    assert d.h_mu is d.h_logvar is d.h is None and a.last.by_x.shape == a.last.dby_x.shape == (B, 4)
    assert [len(one) for one in (a.encoder, a.decoder, a.encoder_pre, a.decoder_pre, d.encoder)] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("parts", [
    {}, {"classes": 2}, {"prior": "mixture:4"}, {"prior": "vamp:15"}, {"prior": "hierarchical:12,10,1"},
    {"posterior": "planar:2"}, {"posterior": "iaf:2:14"}, {"decoder": "made:12+direct"}], ids=str)
def test_no_two_arrays_go_by_one_name(parts):
    """They would be the same memory; but a product of matrices and its gradient are."""
    asked = Counter()

    def take(name, *shape):
        asked[name] += 1
        return np.zeros(shape)
    vae = VAE(D, (E1, E2), Z, kernels="numpy", **parts)
    vae._allocate = take
    vae.passes(B, K)
    assert not [name for name, times in asked.items() if times > 1 + name.endswith("pre")]
