"""Mutants of `mutation.py` that change nothing a test could see, by the reason why.

They are named as the program prints them after "unexplained": module, function, operator, and the source before and
after; or, where one reason holds for many, by their function and a regular expression for the rest of the name.
"""
import re

_GROUPS = {
    "At out = 0 both branches are dout.": [
        "kernels.reference.dense.elu_backward: comparison: dpre[...] = np.where(out.real < 0, dout * (out + "
        "1), dout) -> "
        "dpre[...] = np.where(out.real <= 0, dout * (out + 1), dout)"],
    "The residual is only squared.": [
        "kernels.reference.likelihoods.gaussian_nll_forward: arithmetic: r = (x[:, None, :] - mean) * "
        "np.exp(-0.5 * logvar) -> "
        "r = (mean - x[:, None, :]) * np.exp(-0.5 * logvar)",
        "kernels.reference.likelihoods.gaussian_nll_forward: sign: r = (x[:, None, :] - mean) * np.exp(-0.5 * "
        "logvar) -> "
        "r = -((x[:, None, :] - mean) * np.exp(-0.5 * logvar))"],
    "One row, one column or one entry: the first is the last.": [
        "buffers.buffers: constant: vae.output.shapes[vae.output.b][0] -> vae.output.shapes[vae.output.b][-1]",
        "evaluate.elbo: constant: -a.nll[:, 0] - a.kl.sum(axis=1) -> -a.nll[:, -1] - a.kl.sum(axis=1)",
        "evaluate.elbo: constant: -a.nll[:, 0] - a.log_ratio[:, 0] -> -a.nll[:, -1] - a.log_ratio[:, 0]",
        "evaluate.elbo: constant: -a.nll[:, 0] - a.log_ratio[:, 0] -> -a.nll[:, 0] - a.log_ratio[:, -1]",
        "kernels.reference.objectives.importance_bound_forward: constant: m[:, 0] + np.log(total) - "
        "math.log(log_w.shape[1]) -> "
        "m[:, -1] + np.log(total) - math.log(log_w.shape[1])",
        "evaluate.rows_at_once: constant: max(1, _NUMBERS // vae.output.shapes[vae.output.b][0]) -> "
        "max(1, _NUMBERS // vae.output.shapes[vae.output.b][-1])",
        "evaluate.exact_log_likelihood: constant: math.exp(vae.likelihood._logvar(vae.parameters)[0]) -> "
        "math.exp(vae.likelihood._logvar(vae.parameters)[-1])"],
    "What is squared, or of which the absolute value is taken, may have either sign.": [
        "evaluate.log_likelihood: sign: 2 * log_sum + np.log(np.square(weights).sum(axis=1)) -> "
        "2 * log_sum + np.log(np.square(-weights).sum(axis=1))",
        "evaluate.exact_log_likelihood: sign: projected = r @ W.T -> projected = -(r @ W.T)",
        "evaluate.exact_log_likelihood: sign: np.linalg.slogdet(M)[1] -> np.linalg.slogdet(-M)[1]"],
    "Of two things that are wrong at once, another is named first.": [
        "evaluate.why_not_exact: order: (('prior', 'normal'), ('decoder', 'dense'), ('decoder_hi... -> "
        "(('decoder', 'dense'), ('prior', 'normal'), ('decoder_hi...",
        "evaluate.why_not_exact: order: ...mal'), ('decoder', 'dense'), ('decoder_hidden', [])) -> "
        "...mal'), ('decoder_hidden', []), ('decoder', 'dense'))"],
    "The output has 2 D columns: D from the left is D from the right.": [
        "likelihoods.GaussianPixel.mean: constant: return output[:, :output.shape[1] // 2].copy() -> "
        "return output[:, :output.shape[1] // -2].copy()"],
    "The middle one of three numbers, whichever of them is called a bound.": [
        "levels.mean_within: argument: return np.clip(mean, 0.001, 1 - 0.001) -> "
        "return np.clip(0.001, mean, 1 - 0.001)"],
    "The cosine is an even function.": [
        "optim.CosineLR.__call__: sign: 1 + math.cos(math.pi * min(1.0, step / self.total_steps)) -> "
        "1 + math.cos(-(math.pi * min(1.0, step / self.total_steps)))",
        "kernels.reference.batches.box_muller: sign: ...] = (r * np.cos(angle), r * np.s... -> "
        "...] = (r * np.cos(-angle), r * np.s..."],
    "Only shape and type are taken, and both arrays or columns have the same.": [
        "objectives.IWAE.__call__: constant: np.empty_like(log_w[:, 0]) -> np.empty_like(log_w[:, -1])",
        "evaluate.importance_bound: constant: (np.empty_like(log_w[:, 0]), np.empty_like(log_w)) -> "
        "(np.empty_like(log_w[:, -1]), np.empty_like(log_w))",
        "evaluate.kl_per_dimension: name: kl = np.empty_like(mu) -> kl = np.empty_like(logvar)"],
    "The two moments are made at once, with the same shapes and the same type: there is never one without the other.": [
        "optim.Adam.prepare: condition: if self.m is None or self.v is None: -> "
        "if self.m is None and self.v is None:",
        "optim.Adam.prepare: condition: if self.m is None or self.v is None: -> if self.v is None:",
        "optim.Adam.prepare: condition: if self.m is None or self.v is None: -> if self.m is None:",
        "optim.Adam.prepare: name: if self.m is None or self.v is None: -> if self.v is None or self.v is None:",
        "optim.Adam.prepare: name: if self.m is None or self.v is None: -> if self.m is None or self.m is None:",
        "optim.Adam.prepare: name: self.m.shapes != parameters.shapes -> self.v.shapes != parameters.shapes",
        "optim.Adam.prepare: name: self.m.flat.dtype != parameters.flat.dtype -> "
        "self.v.flat.dtype != parameters.flat.dtype"],
    "At norm = max_norm the factor is 1 either way.": [
        "optim.Adam.step: comparison: largest * ratio > self.max_norm -> largest * ratio >= self.max_norm"],
    "How many rows pass at a time changes the rounding of a product at most.": [
        "evaluate.module: constant: _BLOCK = 500 -> _BLOCK = 501",
        "evaluate.module: constant: _BLOCK = 500 -> _BLOCK = 499",
        "model.module: constant: _BLOCK = 500 -> _BLOCK = 501",
        "model.module: constant: _BLOCK = 500 -> _BLOCK = 499",
        "flows.module: constant: _BLOCK = 500 -> _BLOCK = 501",
        "flows.module: constant: _BLOCK = 500 -> _BLOCK = 499"],
    "Values and gradients share the buffers of matrix products: the same array by two names.": [
        "outputs.DenseOutput.backward: name: d.rows_pre -> a.rows_pre",
        "made.MADE.backward: name: d.rows_pre.reshape(a.output.shape) -> a.rows_pre.reshape(a.output.shape)",
        "second_layer.SecondLayer.backward: name: d.mu2_pre -> a.mu2_pre",
        "model.VAE.backward: name: d.decoder_pre -> a.decoder_pre",
        "model.VAE.backward: name: d.logvar_pre -> a.logvar_pre",
        "model.VAE.backward: name: d.mu_pre -> a.mu_pre",
        "model.VAE.backward: name: d.encoder_pre -> a.encoder_pre"],
    "What a matrix product leaves here is used in the next line and not again.": [
        "model.VAE._encode: name: a.mu_pre -> a.logvar_pre",
        "model.VAE._encode: name: a.logvar_pre -> a.mu_pre"],
    "Buffers of values and of gradients are taken in either order: neither knows of the other.": [
        "flows._Steps.add_buffers: order: for one, mark in ((a, ''), (d, 'd')): -> "
        "for one, mark in ((d, 'd'), (a, '')):",
        "flows.Planar.add_buffers: order: for one, mark in ((a, ''), (d, 'd')): -> "
        "for one, mark in ((d, 'd'), (a, '')):"],
    "The identity's backward pass does not look at the output.": [
        "flows._Steps.backward: name: a.told_rows -> d.told_rows",
        "flows.InverseAutoregressive.step_back: name: _rows(a.net[t]) -> _rows(d.net[t])"],
    "z has the shape of eps.": [
        "flows.InverseAutoregressive.add_buffers: name: (B, K, Z), T, H = (a.eps.shape, self.steps, self.width) -> "
        "(B, K, Z), T, H = (a.z.shape, self.steps, self.width)"],
    "The array is only looked at as rows, (B K, H).": [
        "flows.InverseAutoregressive.add_buffers: argument: one.units = take(f'{mark}flow hidden', T, B, K, H) -> "
        "one.units = take(f'{mark}flow hidden', T, K, B, H)"],
    "One buffer is read for the last time before the other is written, so that they may be one.": [
        "flows.InverseAutoregressive.add_buffers: argument: a.units_told = take('flow hidden pre and told', B, K, H) "
        "-> a.units_told = take('dflow z by gate', B, K, H)",
        "made.MADE.add_buffers: argument: (take('made by h', BK, H), take('output by h', BK, D)) -> "
        "(take('made by h', BK, H), take('dh by made', BK, D))"],
    "A slice may end behind the last column.": [
        "masks.Staircase.__init__: index: ...=0).sum(), n_out)) -> ...=0).sum(), n_out + 1))"],
    "Minus 0 is 0, for whole numbers.": [
        "made.MADE.__init__: sign: told = np.zeros(hidden, int) -> told = -np.zeros(hidden, int)"],
    "Which of two independent streams of random numbers a layer is drawn from does not matter, nor that there is a "
    "third.": [
        "made.MADE.initialize: order: zip((self.first, self.last), rng.spawn(2)) -> "
        "zip((self.last, self.first), rng.spawn(2))",
        "made.MADE.initialize: constant: zip((self.first, self.last), rng.spawn(2)) -> "
        "zip((self.first, self.last), rng.spawn(3))"],
    "A sum divides it, and takes the sign away.": [
        "priors.Mixture.sample: sign: np.exp(logits.real.astype(np.float64) - logits.real.max()) -> "
        "-np.exp(logits.real.astype(np.float64) - logits.real.max())"],
    "A model with a VampPrior has no classes, and does not look at labels.": [
        "priors.Vamp.pseudo_inputs: argument: np.zeros(1, np.int64) -> np.zeros(1)"],
    "The gradient has the shape of the values.": [
        "second_layer.SecondLayer.add_buffers: name: take(f'ddecoder2 by {head}', *d.decoder2[-1].shape) -> "
        "take(f'ddecoder2 by {head}', *a.decoder2[-1].shape)"],
    "Two buffers of one shape, each of which stays 0 or is written before it is read, by each other's name.": [
        "priors.Vamp.add_buffers: order: (take('prior bias', D), take('dprior bias', D)) -> "
        "(take('dprior bias', D), take('prior bias', D))"],
    "Of the names that are allowed, total is the last in the alphabet.": [
        "objectives.ELBO.__init__: comparison: choice('gradient', gradient, ('total', 'stl')) != 'total' -> "
        "choice('gradient', gradient, ('total', 'stl')) < 'total'"],
    "Every buffer is written before it is read.": [
        "model.VAE._take: sign: self._memory[name] = np.zeros(size, self.dtype) -> "
        "self._memory[name] = -np.zeros(size, self.dtype)",
        "model.VAE._take: function: self._memory[name] = np.zeros(size, self.dtype) -> "
        "self._memory[name] = np.ones(size, self.dtype)"],
    "No pass draws more than _ROWS samples, so that one image always fits, and two where there are two.": [
        "evaluate.log_likelihood: function: images = max(1, rows // draws) -> images = rows // draws",
        "evaluate.log_likelihood: constant: images = max(1, rows // draws) -> images = max(2, rows // draws)",
        "evaluate.log_likelihood: constant: images = max(1, rows // draws) -> images = max(0, rows // draws)",
        "evaluate.log_likelihood: constant: images = max(1, rows // draws) -> images = max(-1, rows // draws)"]}
EQUIVALENT = {mutant: reason for reason, mutants in _GROUPS.items() for mutant in mutants}

#: reason -> function -> what the names of its mutants must match, after the function
PATTERNS = {
    "The last axis of a matrix is axis 1.": {
        "kernels.reference.flows.planar_direction_forward": "sign: .*axis=-1.* -> .*axis=1.*",
        "kernels.reference.flows.planar_direction_backward": "sign: .*axis=-1.* -> .*axis=1.*",
        "kernels.reference.priors.gaussian_log_density_forward": "sign: axis=-1 -> axis=1"}}


def reason(name: str) -> str:
    """Why a mutant changes nothing; "" if it has not been explained."""
    function, _, rest = name.partition(": ")
    found = (why for why, patterns in PATTERNS.items()
             if function in patterns and re.fullmatch(patterns[function], rest, re.DOTALL))
    return EQUIVALENT.get(name) or next(found, "")
