"""Exhibits: Adam, training and evaluation.  (How to read one: see `network.py`.)

This code uses gradients and computes none, so a gradient check does not apply.
"""
from npvae import Adam
from npvae.evaluate import bounds, dimensions
from npvae.train import loop, run
from npvae.kernels.reference import batches, optim

from .exhibit import IMPORTANCE, MODEL, NO, NOT_APPLICABLE, Exhibit

_ROOT, _RATE = "math.sqrt(1 - beta2 ** step)", "lr / (1 - beta1 ** step)"


def _adam(name: str, should: str, says: str, shipped: str = "") -> Exhibit:
    return Exhibit(name, NOT_APPLICABLE, "Adam by hand", MODEL, optim.adam_update, should, says, shipped=shipped)


ADAM = [
    _adam("Adam: m not corrected for its start at zero", _RATE, "lr", "EurekaLabsAI/micrograd, mended in #2"),
    _adam("Adam: v not corrected for its start at zero", _ROOT, "1.0"),
    _adam("Adam: multiplied by the correction", _RATE, "lr * (1 - beta1 ** step)", "karpathy/convnetjs #70"),
    _adam("Adam: correction without the power of t", _RATE, "lr / (1 - beta1)", "eriklindernoren/ML-From-Scratch #35"),
    _adam("Adam: v's correction not under the root", _ROOT, "1 - beta2 ** step"),
    _adam("Adam: eps under the root", "np.sqrt(v) / root + eps", "np.sqrt(v + eps) / root"),
    _adam("Adam: eps before the correction", "np.sqrt(v) / root + eps", "(np.sqrt(v) + eps) / root",
          "tensorflow/tensorflow #35102 (\"epsilon hat\"), pytorch/pytorch #22628, karpathy/nanochat #304"),
    _adam("Adam: |g| for g^2", "(1 - beta2) * g * g", "(1 - beta2) * np.abs(g)"),
    _adam("Adam: beta2 for beta1", "beta1 * m + (1 - beta1) * g", "beta2 * m + (1 - beta2) * g"),
    _adam("Adam: 1 - beta1 forgotten", "beta1 * m + (1 - beta1) * g", "beta1 * m + g"),
    _adam("Adam: uphill", "np.subtract(theta,", "np.add(theta,"),
    _adam("Adam: v from the gradient before clipping", "(1 - beta2) * g * g", "(1 - beta2) * grad * grad"),
    Exhibit("Adam: first step counted as the second", NOT_APPLICABLE, "Adam by hand", MODEL, Adam.step,
            "scale, self.t)",
            "scale, self.t + 1)"),
    Exhibit("Adam: schedule one step ahead", NOT_APPLICABLE, "Adam by hand", MODEL, Adam.step,
            "self.lr(self.t), 1.0",
            "self.lr(self.t + 1), 1.0"),
    Exhibit("Adam: moments forgotten between steps", NOT_APPLICABLE, "Adam by hand", MODEL, Adam.prepare,
            "if self.m is None or self.v is None:",
            "if True:"),
    Exhibit("clipping: short gradients made longer", NOT_APPLICABLE, "Adam by hand", MODEL, Adam.step,
            "if largest * ratio > self.max_norm",
            "if largest * ratio < self.max_norm"),
    Exhibit("clipping: never", NOT_APPLICABLE, "Adam by hand", MODEL, Adam.step,
            "if largest * ratio > self.max_norm",
            "if False", shipped="NVIDIA/OpenSeq2Seq, mended in #192 (in effect)"),
    Exhibit("clipping: by the square of the norm", NOT_APPLICABLE, "Adam by hand", MODEL, Adam.step,
            "gradients.norm_in_parts()",
            "(1.0, gradients.norm() ** 2)", shipped="paiml/entrenar #311"),
]

_STEP = "run.optimizer.step(vae.parameters, vae.gradients, vae.engine.kernels)"


def _epoch(name: str, function: object, should: str, says: str, shipped: str = "") -> Exhibit:
    return Exhibit(name, NOT_APPLICABLE, "epoch by hand", MODEL, function, should, says, shipped=shipped)


TRAINING = [
    _epoch("Adam stepped for each example", loop.train_step, _STEP, f"[{_STEP} for _ in index]", "others"),
    _epoch("the last, smaller batch dropped", vars(run.Run)["batches"].fget, "-(-len(self.train) // size)",
           "(len(self.train) // size)"),
    _epoch("a row lost between batches", loop._train_epoch, "(run.batch + 1) * size]", "(run.batch + 1) * size - 1]"),
    _epoch("never shuffled", loop._train_epoch, 'stream(run.settings["seed"], _SHUFFLE, run.epoch).permutation(',
           "np.arange("),
    _epoch("the same order in every epoch", loop._train_epoch, "_SHUFFLE, run.epoch)", "_SHUFFLE, 0)",
           "cszn/KAIR, mended in #106"),
    _epoch("rows drawn with replacement", loop._train_epoch, "permutation(len(run.train))",
           "integers(0, len(run.train), len(run.train))"),
    _epoch("the same noise in every epoch", run.Run.begin_epoch, "_NOISE, self.epoch)", "_NOISE, 0)"),
    _epoch("beta follows the epochs, not the steps", loop.train_step, "run.objective, run.step)",
           "run.objective, run.epoch)"),
    _epoch("epoch loss as a mean over batches", loop.train_step, "loss * len(index)",
           "loss * len(run.train) / run.batches", "catalyst-team/catalyst #799, dnouri/nolearn #247"),
    _epoch("KL reported with the wrong sign", loop._kl_sum, "else a.kl.sum()", "else -a.kl.sum()",
           "reported: AntixK/PyTorch-VAE #68"),
    _epoch("test numbers from the training images", loop._evaluate, "run.test.gather", "run.train.gather"),
    _epoch("bytes not divided by 255", batches.gather_rows, "x.dtype.type(scale)", "x.dtype.type(1)"),
    _epoch("active units counted over images", dimensions.count_active, "axis=0", "axis=1"),
    Exhibit("binarization: black and white swapped", NOT_APPLICABLE, "binarization", MODEL, batches.gather_binarized,
            "np.less(noise,",
            "np.greater(noise,"),
    Exhibit("evaluated at z = mu", NO, "exact log p(x)", MODEL, bounds.draw_pass,
            "draw_noise(a, rng, vae.engine.kernels)",
            "a.eps[...] = 0", shipped="pytorch/examples, mended in #419"),
    Exhibit("elbo: KL with the wrong sign", NO, "exact log p(x)", MODEL, bounds.elbo,
            "-nll - kl",
            "-nll + kl"),
    Exhibit("log-likelihood: blocks of draws weighted alike", NO, "exact log p(x)", IMPORTANCE, bounds.log_likelihood,
            "bound + np.log(own.shape[1])",
            "bound"),
]
