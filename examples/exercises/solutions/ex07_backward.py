"""Exercise 7: the whole backward pass of a VAE.

    x -> encoder (dense, ReLU) -> h_enc -> two dense heads, mu and logvar -> z -> decoder (dense, ReLU) -> h_dec
      -> output (dense) -> logits;      loss = mean over the batch of (nll + beta kl), nll Bernoulli, prior Normal(0, 1)

params holds W (in, out) and b (out,) of the five layers under "encoder.W", "encoder.b", "mu.W", ..., "output.b".  x is
(B, D), eps (B, Z).  Build it from what you wrote in exercises 3 to 6; their files lie beside this one.
"""
import numpy as np

from ex03_dense import dense, dense_backward, relu, relu_backward
from ex04_likelihood import bernoulli_nll, bernoulli_nll_backward
from ex05_kl import gaussian_kl, gaussian_kl_backward
from ex06_reparameterization import reparameterize, reparameterize_backward

Arrays = dict[str, np.ndarray]

# your number: the weight of the KL term
BETA = 0.5


def forward(params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float = BETA) -> Arrays:
    """The values h_enc, mu, logvar, z, h_dec, logits, nll (B,), kl (B,) and loss, a number, under these names."""
    f = {"h_enc": relu(dense(x, params["encoder.W"], params["encoder.b"]))}
    f["mu"] = dense(f["h_enc"], params["mu.W"], params["mu.b"])
    f["logvar"] = dense(f["h_enc"], params["logvar.W"], params["logvar.b"])
    f["z"] = reparameterize(f["mu"], f["logvar"], eps)
    f["h_dec"] = relu(dense(f["z"], params["decoder.W"], params["decoder.b"]))
    f["logits"] = dense(f["h_dec"], params["output.W"], params["output.b"])
    f["nll"] = bernoulli_nll(f["logits"], x)
    f["kl"] = gaussian_kl(f["mu"], f["logvar"])
    f["loss"] = np.asarray(np.mean(f["nll"] + beta * f["kl"]))
    return f


def _down_to_the_encoder(f: Arrays, params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float
                         ) -> tuple[Arrays, np.ndarray]:
    """The gradients of all layers but the first, and that of what enters the encoder's ReLU."""
    grads: Arrays = {}
    share = np.full(len(x), 1 / len(x), x.dtype)      # of each image in the mean
    dlogits = bernoulli_nll_backward(share, f["logits"], x)
    dh_dec, grads["output.W"], grads["output.b"] = dense_backward(dlogits, f["h_dec"], params["output.W"])
    dpre = relu_backward(dh_dec, f["h_dec"])
    dz, grads["decoder.W"], grads["decoder.b"] = dense_backward(dpre, f["z"], params["decoder.W"])
    dmu_z, dlogvar_z = reparameterize_backward(dz, f["logvar"], eps)
    dmu_kl, dlogvar_kl = gaussian_kl_backward(beta * share, f["mu"], f["logvar"])
    dh_mu, grads["mu.W"], grads["mu.b"] = dense_backward(dmu_z + dmu_kl, f["h_enc"], params["mu.W"])
    dh_logvar, grads["logvar.W"], grads["logvar.b"] = dense_backward(dlogvar_z + dlogvar_kl, f["h_enc"],
                                                                     params["logvar.W"])
    return grads, relu_backward(dh_mu + dh_logvar, f["h_enc"])


def backward(f: Arrays, params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float = BETA) -> Arrays:
    """The gradient of the loss with respect to every entry of params, under the same names.  f is what forward gave."""
    grads, dpre = _down_to_the_encoder(f, params, x, eps, beta)
    grads["encoder.W"], grads["encoder.b"] = x.T @ dpre, dpre.sum(axis=0)      # nobody asks for dx
    return grads


def image_gradient(f: Arrays, params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float = BETA) -> np.ndarray:
    """dx (B, D), the gradient of the loss with respect to the images.  How many paths lead from x to the loss?"""
    dpre = _down_to_the_encoder(f, params, x, eps, beta)[1]
    return dpre @ params["encoder.W"].T - f["logits"] / len(x)
