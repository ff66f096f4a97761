"""Lesson zero: a variational autoencoder with every gradient by hand, in one file of plain NumPy.

    python examples/vae_in_one_file.py [--epochs 3] [--data FOLDER]     train on MNIST
    python examples/vae_in_one_file.py --check                          check the gradients numerically

Read it before the package. It imports nothing from there, so each can be checked against the other.

The model: an image x (D pixels in [0, 1]) is drawn from p(x|z), given a latent vector z (Z numbers):
    prior          p(z)   = Normal(0, 1)                 decoder   p(x|z) = Bernoulli(sigmoid(logits(z)))
    approximation  q(z|x) = Normal(mu(x), sigma(x)^2)    encoder   logvar(x) = log sigma^2
Training minimises the negative ELBO, a bound on -log p(x) when pixels are binary (here they are grey, so the
number is a loss and no likelihood). In nats, summed over pixels and latents, averaged over the batch:
    loss = mean_B [ -log p(x|z) + KL(q(z|x) || p(z)) ],   z = mu + sigma * eps,   eps ~ Normal(0, 1)
Shapes: B batch, D data, H hidden, Z latent; W is (in, out), b is (out,). dX means dloss/dX, with X's shape.
Source: Kingma & Welling, Auto-Encoding Variational Bayes (2014), equation 10 and appendix B.
"""
import argparse
import gzip
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

Arrays = dict[str, np.ndarray]  # parameter name -> array


def initialize(rng: np.random.Generator, input_dim: int = 784, hidden: int = 128, latent: int = 20,
               dtype: type = np.float32) -> Arrays:
    """W ~ Normal(0, gain / max(in, out)), b = 0. Gain 2 before a ReLU, which drops half the signal (He et al. 2015)."""
    layers = [("encoder.0", input_dim, hidden, 2), ("mu", hidden, latent, 1), ("logvar", hidden, latent, 1),
              ("decoder.0", latent, hidden, 2), ("output", hidden, input_dim, 1)]
    params = {}
    for name, n_in, n_out, gain in layers:
        params[name + ".W"] = (rng.standard_normal((n_in, n_out)) * np.sqrt(gain / max(n_in, n_out))).astype(dtype)
        params[name + ".b"] = np.zeros(n_out, dtype)
    return params


# Branching on the real part lets forward also run on complex numbers, for complex-step derivatives.
def softplus(t: np.ndarray) -> np.ndarray:
    """log(1 + e^t) = max(t, 0) + log(1 + e^-|t|), in which nothing can overflow."""
    return np.where(t.real > 0, t, 0) + np.log1p(np.exp(np.where(t.real > 0, -t, t)))


def sigmoid(t: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-t) for t > 0 and e^t / (1 + e^t) otherwise; the derivative of softplus."""
    e = np.exp(np.where(t.real > 0, -t, t))  # e^-|t|
    return np.where(t.real > 0, 1, e) / (1 + e)


def affine_backward(grads: Arrays, name: str, x: np.ndarray, dy: np.ndarray) -> None:
    """Forward was y = x W + b, or y_bo = sum_i x_bi W_io + b_o. Each gradient is a sum of dy_bo times a derivative."""
    grads[name + ".W"] = x.T @ dy        # dW_io = sum_b x_bi dy_bo
    grads[name + ".b"] = dy.sum(axis=0)  # db_o  = sum_b dy_bo
    # dx_bi = sum_o dy_bo W_io, or dx = dy W^T, is written out where it is needed


def forward(params: Arrays, x: np.ndarray, eps: np.ndarray) -> SimpleNamespace:
    """From x (B, D) and noise eps (B, Z) to the loss. All intermediate values are kept for the backward pass."""
    f = SimpleNamespace()
    f.pre_enc = x @ params["encoder.0.W"] + params["encoder.0.b"]        # (B, H)
    f.h_enc = f.pre_enc * (f.pre_enc.real > 0)                           # ReLU(t) = max(t, 0)
    f.mu = f.h_enc @ params["mu.W"] + params["mu.b"]                     # (B, Z)
    f.logvar = f.h_enc @ params["logvar.W"] + params["logvar.b"]         # (B, Z) log sigma^2
    f.sigma = np.exp(f.logvar / 2)                                       # sigma = e^(logvar / 2)
    f.z = f.mu + f.sigma * eps                                           # z ~ q(z|x), reparameterized
    f.pre_dec = f.z @ params["decoder.0.W"] + params["decoder.0.b"]      # (B, H)
    f.h_dec = f.pre_dec * (f.pre_dec.real > 0)                           # ReLU
    f.logits = f.h_dec @ params["output.W"] + params["output.b"]         # (B, D)
    # With p = sigmoid(t): log p = t - softplus(t) and log(1 - p) = -softplus(t), therefore
    # -log p(x|z) = -sum_D [x log p + (1 - x) log(1 - p)] = sum_D [softplus(t) - x t]
    f.nll = (softplus(f.logits) - x * f.logits).sum(axis=1)              # (B,)
    # KL = E_q[log q - log p] = 1/2 sum_Z [mu^2 + e^logvar - 1 - logvar], and expm1(t) = e^t - 1
    f.kl = 0.5 * (f.mu**2 + np.expm1(f.logvar) - f.logvar).sum(axis=1)   # (B,)
    f.loss = (f.nll + f.kl).mean()                                       # nats per image
    return f


def loss_and_gradients(params: Arrays, x: np.ndarray, eps: np.ndarray) -> tuple[np.floating, Arrays]:
    """Loss in nats and dloss/dparameter by name. The backward pass is the forward pass read upwards, line by line."""
    f, batch = forward(params, x, eps), len(x)
    grads: Arrays = {}
    # Forward was loss = 1/B sum_b (nll_b + kl_b), nll = sum_D [softplus(t) - x t]; and softplus' = sigmoid
    dlogits = (sigmoid(f.logits) - x) / batch
    affine_backward(grads, "output", f.h_dec, dlogits)
    dh_dec = dlogits @ params["output.W"].T
    dpre_dec = dh_dec * (f.pre_dec.real > 0)  # forward was max(t, 0): slope 1 where t > 0, else 0
    affine_backward(grads, "decoder.0", f.z, dpre_dec)
    dz = dpre_dec @ params["decoder.0.W"].T
    # mu and logvar reach the loss on two paths, through z and through the KL; their gradients add:
    #   forward was  z = mu + e^(logvar/2) eps                 dz/dmu = 1     dz/dlogvar = eps sigma / 2
    #   forward was  kl = 1/2 (mu^2 + e^logvar - 1 - logvar)   dkl/dmu = mu   dkl/dlogvar = (e^logvar - 1) / 2
    dlogvar = dz * eps * f.sigma / 2 + np.expm1(f.logvar) / 2 / batch
    dmu = dz + f.mu / batch
    affine_backward(grads, "logvar", f.h_enc, dlogvar)
    affine_backward(grads, "mu", f.h_enc, dmu)
    dh_enc = dlogvar @ params["logvar.W"].T + dmu @ params["mu.W"].T  # h_enc has two paths to the loss, too
    dpre_enc = dh_enc * (f.pre_enc.real > 0)  # forward was max(t, 0)
    affine_backward(grads, "encoder.0", x, dpre_enc)  # dx is not needed
    return f.loss, {name: grads[name] for name in params}  # in the order of the parameters


def evaluate(params: Arrays, x: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(mean nll, mean KL) in nats per image, with z sampled: at z = mu the nll would be some nats too low."""
    f = forward(params, x, rng.standard_normal((len(x), params["mu.b"].size)).astype(x.dtype))
    return float(f.nll.mean()), float(f.kl.mean())


def adam_step(params: Arrays, grads: Arrays, m: Arrays, v: Arrays, t: int, lr: float = 1e-3) -> None:
    """Step t = 1, 2, ... of Adam in place (Kingma & Ba 2015, Algorithm 1); m and v start as zeros."""
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    for name, g in grads.items():
        m[name] = beta1 * m[name] + (1 - beta1) * g
        v[name] = beta2 * v[name] + (1 - beta2) * g**2
        m_hat, v_hat = m[name] / (1 - beta1**t), v[name] / (1 - beta2**t)  # corrects the bias of starting at zero
        params[name] -= lr * m_hat / (np.sqrt(v_hat) + epsilon)


def gradient_check(rng: np.random.Generator) -> dict[str, float]:
    """Per tensor max |analytic - numerical| / RMS(analytic), numerical = (loss(w + h) - loss(w - h)) / 2h."""
    h = 1e-5
    while True:  # redraw until no input of a ReLU is so near 0 that a step of h could change its sign
        params = initialize(rng, input_dim=7, hidden=5, latent=3, dtype=np.float64)
        for w in params.values():
            w += 0.1 * rng.standard_normal(w.shape)
        x, eps = rng.random((4, 7)), rng.standard_normal((4, 3))
        f = forward(params, x, eps)
        if min(np.abs(f.pre_enc).min(), np.abs(f.pre_dec).min()) > 100 * h:
            break
    errors = {}
    for name, g in loss_and_gradients(params, x, eps)[1].items():
        w, numerical = params[name], np.empty_like(g)
        for i in np.ndindex(g.shape):
            w[i] += h
            numerical[i] = forward(params, x, eps).loss
            w[i] -= 2 * h
            numerical[i] -= forward(params, x, eps).loss
            w[i] += h
        errors[name] = float(np.abs(g - numerical / (2 * h)).max() / np.sqrt((g**2).mean()))
    return errors


def read_images(path: Path) -> np.ndarray:
    """Grey pixels (N, 784) in [0, 1] of a gzipped IDX file: four integers 2051, N, 28, 28, then the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    n, rest = divmod(len(raw) - 16, 784)
    if n < 1 or rest or np.frombuffer(raw[:16], ">u4").tolist() != [2051, n, 28, 28]:
        raise ValueError(f"{str(path)!r} is not a complete IDX file of 28 x 28 images")
    return np.divide(np.frombuffer(raw, np.uint8, offset=16).reshape(n, 784), 255, dtype=np.float32)


def train(params: Arrays, x_train: np.ndarray, x_test: np.ndarray, epochs: int,
          rng: np.random.Generator) -> None:
    """Adam on shuffled batches of 128, with fresh noise for every image; prints one line per epoch."""
    m, v = ({name: np.zeros_like(w) for name, w in params.items()} for _ in range(2))
    t = 0
    for epoch in range(1, epochs + 1):
        begin, total, order = time.perf_counter(), 0.0, rng.permutation(len(x_train))
        for t, start in enumerate(range(0, len(x_train), 128), t + 1):  # t counts on
            x = x_train[order[start:start + 128]]
            eps = rng.standard_normal((len(x), params["mu.b"].size)).astype(x.dtype)
            loss, grads = loss_and_gradients(params, x, eps)
            adam_step(params, grads, m, v, t)
            total += float(loss) * len(x)
        nll, kl = evaluate(params, x_test, rng)
        print(f"epoch {epoch:3d}   train loss {total / len(x_train):7.2f}   test loss {nll + kl:7.2f} = "
              f"recon {nll:.2f} + KL {kl:.2f}   {time.perf_counter() - begin:.1f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, allow_abbrev=False)  # errors then take one line
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training images (default 3)")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "npvae" / "data" / "mnist",
                        help="folder of train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz")
    parser.add_argument("--check", action="store_true", help="check the gradients instead of training")
    args, rng = parser.parse_args(), np.random.default_rng(0)
    if args.epochs < 1:
        parser.error(f"--epochs must be at least 1, not {args.epochs}")
    if args.check:
        errors = gradient_check(rng)
        print("\n".join(f"{name:12s} relative error {error:.1e}" for name, error in errors.items()))
        return int(not all(error < 1e-7 for error in errors.values()))
    try:
        x_train, x_test = (read_images(args.data / f"{p}-images-idx3-ubyte.gz") for p in ("train", "t10k"))
    except ValueError as error:
        parser.error(str(error))
    print("loss = recon + KL, nats per image; grey pixels as Bernoulli targets, z sampled; no log-likelihood")
    train(initialize(rng), x_train, x_test, args.epochs, rng)
    print("for comparison, this program on MNIST gave a test loss of 120.8 after 3 epochs and 110.2 after 10")
    return 0


if __name__ == "__main__":
    sys.exit(main())
