"""Mutants of `mutation.py` that change nothing a test could see, by the reason why.

They are named as the program prints them after "unexplained": module, function, operator, and the source before and
after; or, where one reason holds for many, by their function and a regular expression for the rest of the name.
"""
import re

_GROUPS = {
    "At out = 0 both branches are dout.": [
        "kernels.reference.dense.elu_backward: comparison: dpre[...] = np.where(out.real < 0, dout * (out + 1), "
        "dout) -> dpre[...] = np.where(out.real <= 0, dout * (out + 1), dout)"],
    "Types: only mypy reads them.": [
        "engine.blas_threads.module: argument: _M = TypeVar('_M', bound=_Model) -> _M = TypeVar('_M')"],
    "Members, of which each has a header, are shorter than the file; and behind the last byte there is nothing.": [
        "checkpoint._check_whole: comparison: ...e.infolist())) > size -> ...e.infolist())) >= size",
        "checkpoint._check_whole: index: for start in range(0, end, PIECE): -> for start in range(0, end + 1, PIECE):"],
    "The residual is only squared.": [
        "kernels.reference.likelihoods.gaussian_nll_forward: arithmetic: r = (x[:, None, :] - mean) * np.exp(-0.5 * "
        "logvar) -> r = (mean - x[:, None, :]) * np.exp(-0.5 * logvar)",
        "kernels.reference.likelihoods.gaussian_nll_forward: sign: r = (x[:, None, :] - mean) * np.exp(-0.5 * "
        "logvar) -> r = -((x[:, None, :] - mean) * np.exp(-0.5 * logvar))",
        "kernels.reference.likelihoods.gaussian_pixel_nll_forward: sign: residual = x[:, None, :] - mean -> residual "
        "= -(x[:, None, :] - mean)",
        "kernels.reference.likelihoods.gaussian_pixel_nll_forward: arithmetic: residual = x[:, None, :] - mean -> "
        "residual = mean - x[:, None, :]",
        "kernels.reference.likelihoods.gaussian_optimal_nll_forward: arithmetic: residual = x[:, None, :] - mean -> "
        "residual = mean - x[:, None, :]",
        "kernels.reference.likelihoods.gaussian_optimal_nll_forward: sign: residual = x[:, None, :] - mean -> "
        "residual = -(x[:, None, :] - mean)",
        "kernels.reference.priors.gaussian_log_density_forward: arithmetic: ((z - mu) * np.exp(-0.5 * logvar)) ** 2 "
        "+ (logvar + LOG_2PI) -> ((mu - z) * np.exp(-0.5 * logvar)) ** 2 + (logvar + LOG_2PI)",
        "kernels.reference.priors.mixture_forward: arithmetic: np.sum(0.5 * ((z - mean[c]) * inverse[c]) ** 2, "
        "axis=-1) -> np.sum(0.5 * ((mean[c] - z) * inverse[c]) ** 2, axis=-1)"],
    "One row, one column or one entry: the first is the last.": [
        "evaluate.bounds.rows_at_once: constant: max(1, _NUMBERS // vae.output.shapes[vae.output.b][0]) -> max(1, "
        "_NUMBERS // vae.output.shapes[vae.output.b][-1])",
        "evaluate.exact.exact_log_likelihood: constant: math.exp(vae.likelihood._logvar(vae.parameters)[0]) -> "
        "math.exp(vae.likelihood._logvar(vae.parameters)[-1])",
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.bias_at: constant: lambda logits: self.mean(reference, "
        "logits[None])[0] -> lambda logits: self.mean(reference, logits[None])[-1]",
        "likelihoods.levels.DiscretizedLogistic.bias_at: constant: self.mean(reference, "
        "with_scale(location)[None])[0] -> self.mean(reference, with_scale(location)[None])[-1]"],
    "What is squared, or of which the absolute value is taken, may have either sign.": [
        "params.Block.norm_in_parts: sign: scaled = self.flat / largest -> scaled = -(self.flat / largest)",
        "evaluate.exact.exact_log_likelihood: sign: projected = r @ W.T -> projected = -(r @ W.T)",
        "evaluate.exact.exact_log_likelihood: sign: np.linalg.slogdet(M)[1] -> np.linalg.slogdet(-M)[1]"],
    "Of two things that are wrong at once, another is named first.": [
        "evaluate.exact.why_not_exact: order: (('prior', 'normal'), ('decoder', 'dense'), ('decoder_hi... -> "
        "(('decoder', 'dense'), ('prior', 'normal'), ('decoder_hi...",
        "evaluate.exact.why_not_exact: order: ...mal'), ('decoder', 'dense'), ('decoder_hidden', [])) -> ...mal'), "
        "('decoder_hidden', []), ('decoder', 'dense'))"],
    "The sum of squares is right on both sides of this bound, and so at it.": [
        "params.Block.norm_in_parts: comparison: if not limits.tiny / limits.eps < squares < math.inf: -> if not "
        "limits.tiny / limits.eps <= squares < math.inf:"],
    "These bounds of a bisection are wide enough already.": [
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.bias_at: constant: -1000 -> -1001",
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.bias_at: constant: 1000 -> 1001",
        "likelihoods.levels.DiscretizedLogistic.bias_at: constant: -1 -> -2",
        "likelihoods.levels.DiscretizedLogistic.bias_at: constant: 2 -> 3"],
    "After 60 halvings and more the last digit stands; on which side equality goes does not matter.": [
        "likelihoods.base.solve: constant: for _ in range(70): -> for _ in range(69):",
        "likelihoods.base.solve: constant: for _ in range(70): -> for _ in range(71):",
        "likelihoods.base.solve: comparison: below = increasing(middle) < target -> below = increasing(middle) <= "
        "target",
        "likelihoods.base.solve: name: return middle -> return upper"],
    "So near 0 the distribution is uniform, to twelve digits, and x as likely as 1 - x.": [
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.draw: constant: t = np.maximum(np.abs(output), 1e-12) "
        "-> t = np.maximum(np.abs(output), 2e-12)",
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.draw: constant: t = np.maximum(np.abs(output), 1e-12) "
        "-> t = np.maximum(np.abs(output), 5e-13)",
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.draw: comparison: return np.where(output < 0, x, 1 - "
        "x).astype(output.dtype) -> return np.where(output <= 0, x, 1 - x).astype(output.dtype)"],
    "A logistic distribution about 0 is symmetric.": [
        "likelihoods.levels.DiscretizedLogistic.draw: arithmetic: x = location + rng.logistic(size=location.shape) / "
        "_rate(r) -> x = location - rng.logistic(size=location.shape) / _rate(r)"],
    "The nll is thrown away: any x will do.": [
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.mean: sign: np.zeros_like(output) -> "
        "np.zeros_like(-output)",
        "likelihoods.continuous_bernoulli.ContinuousBernoulli.mean: name: np.zeros_like(output) -> np.zeros_like(nll)"],
    "In double precision in between; the result has the type of the output all the same.": [
        "likelihoods.levels.DiscretizedLogistic.mean: function: ((np.arange(_STEPS)[:, None] + 0.5) / "
        "_STEPS).astype(output.dtype) -> (np.arange(_STEPS)[:, None] + 0.5) / _STEPS",
        "likelihoods.levels.DiscretizedLogistic.mean: argument: np.zeros(len(m), output.dtype) -> np.zeros(len(m))",
        "likelihoods.levels.BetaBinomial.mean: argument: np.zeros(mean.shape[1], mean.dtype) -> "
        "np.zeros(mean.shape[1])"],
    "NumPy takes any negative size in a reshape for the one that is left open.": [
        "likelihoods.levels.Categorical._top_and_total: constant: 2 -> -2"],
    "The cosine is an even function.": [
        "optim.CosineLR.__call__: sign: 1 + math.cos(math.pi * min(1.0, step / self.total_steps)) -> 1 + "
        "math.cos(-(math.pi * min(1.0, step / self.total_steps)))",
        "kernels.reference.batches.box_muller: sign: ...] = (r * np.cos(angle), r * np.s... -> ...] = (r * "
        "np.cos(-angle), r * np.s..."],
    "Only shape and type are taken, and both arrays or columns have the same.": [
        "objectives.IWAE.__call__: constant: np.empty_like(log_w[:, 0]) -> np.empty_like(log_w[:, -1])",
        "evaluate.bounds.importance_bound: constant: (np.empty_like(log_w[:, 0]), np.empty_like(log_w)) -> "
        "(np.empty_like(log_w[:, -1]), np.empty_like(log_w))",
        "evaluate.dimensions.kl_per_dimension: name: kl = np.empty_like(mu) -> kl = np.empty_like(logvar)",
        "evaluate.summary._Bounds.__call__: name: kl = np.empty_like(a.mu) -> kl = np.empty_like(a.logvar)",
        "likelihoods.levels.DiscretizedLogistic.mean: name: np.empty_like(location) -> np.empty_like(r)",
        "likelihoods.levels.BetaBinomial.mean: name: mean = np.empty_like(log_alpha) -> mean = "
        "np.empty_like(log_beta)"],
    "The two moments are made at once, with the same shapes and the same type: there is never one without the other.": [
        "optim.Adam.prepare: condition: if self.m is None or self.v is None: -> if self.m is None and self.v is None:",
        "optim.Adam.prepare: condition: if self.m is None or self.v is None: -> if self.v is None:",
        "optim.Adam.prepare: condition: if self.m is None or self.v is None: -> if self.m is None:",
        "optim.Adam.prepare: name: if self.m is None or self.v is None: -> if self.v is None or self.v is None:",
        "optim.Adam.prepare: name: if self.m is None or self.v is None: -> if self.m is None or self.m is None:",
        "optim.Adam.prepare: name: self.m.shapes != parameters.shapes -> self.v.shapes != parameters.shapes",
        "optim.Adam.prepare: name: self.m.flat.dtype != parameters.flat.dtype -> self.v.flat.dtype != "
        "parameters.flat.dtype"],
    "At norm = max_norm the factor is 1 either way.": [
        "optim.Adam.step: comparison: largest * ratio > self.max_norm -> largest * ratio >= self.max_norm"],
    "How many rows pass at a time changes the rounding of a product at most.": [
        "evaluate.bounds.module: constant: BLOCK = 500 -> BLOCK = 501",
        "evaluate.bounds.module: constant: BLOCK = 500 -> BLOCK = 499"],
    "What a matrix product leaves here is used in the next line and not again.": [
        "model.vae.VAE._encode: name: a.mu_pre -> a.logvar_pre",
        "model.vae.VAE._encode: name: a.logvar_pre -> a.mu_pre"],
    "A slice may end behind the last column.": [
        "layers.Staircase.__init__: index: ...=0).sum(), n_out)) -> ...=0).sum(), n_out + 1))"],
    "Minus 0 is 0, for whole numbers.": [
        "decoders.MADE.__init__: sign: of_h = np.zeros(hidden, int) -> of_h = -np.zeros(hidden, int)"],
    "Which of two independent streams of random numbers a layer is drawn from does not matter, nor that there is a "
    "third.": [
        "decoders.MADE.initialize: order: zip((self.first, self.last), rng.spawn(2)) -> zip((self.last, self.first), "
        "rng.spawn(2))",
        "decoders.MADE.initialize: constant: zip((self.first, self.last), rng.spawn(2)) -> zip((self.first, "
        "self.last), rng.spawn(3))"],
    "A sum divides it, and takes the sign away.": [
        "likelihoods.levels.Categorical._probabilities: sign: p = np.exp(scores - np.max(scores, axis=1, "
        "keepdims=True)) -> p = -np.exp(scores - np.max(scores, axis=1, keepdims=True))",
        "kernels.reference.priors.mixture_backward: sign: pi = np.exp(logits - logits[np.argmax(logits.real)]) -> pi "
        "= -np.exp(logits - logits[np.argmax(logits.real)])"],
    "Of the names that are allowed, total is the last in the alphabet.": [
        "objectives.ELBO.__init__: comparison: choice('gradient', gradient, ('total', 'stl')) != 'total' -> "
        "choice('gradient', gradient, ('total', 'stl')) < 'total'"],
    "No pass draws more than _ROWS samples, so that one image always fits, and two where there are two.": [
        "evaluate.bounds.log_likelihood: function: images = max(1, rows // draws) -> images = rows // draws",
        "evaluate.bounds.log_likelihood: constant: images = max(1, rows // draws) -> images = max(2, rows // draws)",
        "evaluate.bounds.log_likelihood: constant: images = max(1, rows // draws) -> images = max(0, rows // draws)",
        "evaluate.bounds.log_likelihood: constant: images = max(1, rows // draws) -> images = max(-1, rows // draws)"],
    "The branches are one function in two forms, which where they meet differ by rounding.": [
        "kernels.reference.likelihoods.bernoulli_nll_forward: comparison: x, negative = (x[:, None, :], logits.real "
        "< 0) -> x, negative = (x[:, None, :], logits.real <= 0)",
        "kernels.reference.likelihoods.bernoulli_nll_backward: comparison: np.where(logits.real < 0, tail - x, 1 - x "
        "- tail) -> np.where(logits.real <= 0, tail - x, 1 - x - tail)",
        "kernels.reference.likelihoods.continuous_bernoulli_nll_forward: comparison: x, negative = (x[:, None, :], "
        "logits.real < 0) -> x, negative = (x[:, None, :], logits.real <= 0)",
        "kernels.reference.likelihoods.continuous_bernoulli_nll_forward: comparison: small = t.real < 1 -> small = "
        "t.real <= 1",
        "kernels.reference.likelihoods.continuous_bernoulli_nll_forward: name: small = t.real < 1 -> small = t < 1",
        "kernels.reference.likelihoods.continuous_bernoulli_nll_backward: comparison: np.where(logits.real < 0, tail "
        "- x, 1 - x - tail) -> np.where(logits.real <= 0, tail - x, 1 - x - tail)"],
    "1 / sigma stands twice in every product.": [
        "kernels.reference.likelihoods.gaussian_nll_backward: sign: inverse = np.exp(-0.5 * logvar) -> inverse = "
        "-np.exp(-0.5 * logvar)",
        "kernels.reference.likelihoods.gaussian_optimal_nll_backward: sign: inverse = np.exp(-0.5 * logvar) -> "
        "inverse = -np.exp(-0.5 * logvar)",
        "kernels.reference.priors.gaussian_log_density_backward: sign: inverse = np.exp(-0.5 * logvar) -> inverse = "
        "-np.exp(-0.5 * logvar)"],
    "Stirling's series is exact to rounding from 8 on, and so from 9 on.": [
        "kernels.reference.gamma.module: constant: SHIFT = 8 -> SHIFT = 9"],
    "From exp(45) on (a + 255) / a is 1, and up to exp(350) a^2 is finite: any bound between does.": [
        "kernels.reference.levels.module: constant: LARGEST = 300.0 -> LARGEST = 301.0",
        "kernels.reference.levels.module: constant: LARGEST = 300.0 -> LARGEST = 150.0"],
    "At LARGEST itself both are the same.": [
        "kernels.reference.levels._alpha_beta_level: comparison: both = np.exp(np.where(logs.real > LARGEST, "
        "LARGEST, logs)) -> both = np.exp(np.where(logs.real >= LARGEST, LARGEST, logs))",
        "kernels.reference.levels._alpha_beta_level: name: both = np.exp(np.where(logs.real > LARGEST, LARGEST, "
        "logs)) -> both = np.exp(np.where(logs > LARGEST, LARGEST, logs))"],
    "Of two types the larger is taken, in whichever order they are given.": [
        "kernels.reference.levels._alpha_beta_level: argument: output.astype(np.promote_types(output.dtype, "
        "np.float64)) -> output.astype(np.promote_types(np.float64, output.dtype))"],
    "A pixel that is NaN costs NaN, at whichever level it is looked up; other numbers that are none are refused "
    "before.": [
        "kernels.reference.levels._index: constant: np.where(np.isin(level, np.arange(levels)), level, 0).astype -> "
        "np.where(np.isin(level, np.arange(levels)), level, 1).astype",
        "kernels.reference.levels._index: constant: ...evels)), level, 0).astype -> ...evels)), level, -1).astype"],
    "NumPy takes any negative number for the size that it is to find.": [
        "kernels.reference.levels.categorical_nll_forward: constant: scores = logits.reshape(*top.shape, -1) -> "
        "scores = logits.reshape(*top.shape, -2)",
        "kernels.reference.levels.categorical_nll_backward: constant: scores = logits.reshape(*top.shape, -1) -> "
        "scores = logits.reshape(*top.shape, -2)"],
    "The last axis is the default, in NumPy from 2.3 on.": [
        "kernels.reference.levels.categorical_nll_forward: argument: m = np.take_along_axis(scores, largest, "
        "axis=-1) -> m = np.take_along_axis(scores, largest)",
        "kernels.reference.levels.categorical_nll_forward: argument: ...[-1])[..., None], axis=-1) -> ...[-1])[..., "
        "None])",
        "kernels.reference.priors.mixture_forward: argument: ...=-1)[:, :, None], axis=-1) -> ...=-1)[:, :, None])"],
    "0 and NaN have no sign that counts.": [
        "kernels.reference.levels.categorical_nll_backward: arithmetic: upstream = dnll[..., None, None] + 0 * x[:, "
        "None, :, None] -> upstream = dnll[..., None, None] - 0 * x[:, None, :, None]",
        "kernels.reference.levels.categorical_nll_forward: arithmetic: m - taken + np.log1p(others) + 0 * x[:, None, "
        ":, None] -> m - taken + np.log1p(others) - 0 * x[:, None, :, None]"],
    "The same two axes, named otherwise.": [
        "kernels.reference.priors.mixture_backward: order: dmean[c] = np.sum(pull, axis=(0, 1)) -> dmean[c] = "
        "np.sum(pull, axis=(1, 0))",
        "kernels.reference.priors.mixture_backward: order: 0.5 * (np.sum(push * r, axis=(0, 1)) - dlogits[c]) -> 0.5 "
        "* (np.sum(push * r, axis=(1, 0)) - dlogits[c])",
        "kernels.reference.levels.categorical_nll_forward: order: np.sum(cost, axis=(2, 3), out=nll) -> np.sum(cost, "
        "axis=(3, 2), out=nll)",
        "kernels.reference.levels.categorical_nll_forward: constant: np.sum(cost, axis=(2, 3), out=nll) -> "
        "np.sum(cost, axis=(-2, 3), out=nll)"],
    "For k = 0 it is 0 divided by a number.": [
        "kernels.reference.levels._rising_slope: constant: first = k / np.where(some, a + k, 1) -> first = k / "
        "np.where(some, a + k, -1)",
        "kernels.reference.levels._rising_slope: constant: first = k / np.where(some, a + k, 1) -> first = k / "
        "np.where(some, a + k, 2)"],
    "The last term is below 1e-17 of the sum, and one more still smaller.": [
        "kernels.reference.latents.module: constant: range(2, 17) -> range(2, 18)",
        "kernels.reference.latents.module: constant: range(2, 17) -> range(2, 16)"],
    "Of numbers with the same real part any may be the shift, which changes nothing on paper.": [
        "kernels.reference.priors.mixture_forward: name: np.argmax(log_joint.real, axis=-1)[:, :, None] -> "
        "np.argmax(log_joint, axis=-1)[:, :, None]"],
    "The weights of a draw sum to one, so that dlogits still has the sum of dlog_p.": [
        "kernels.reference.priors.mixture_backward: name: dlogits[...] -= pi / np.sum(pi) * np.sum(dlog_p) -> "
        "dlogits[...] -= pi / np.sum(pi) * np.sum(dlogits)"],
    "np.repeat takes a float for a whole number.": [
        "kernels.reference.arrays.append_labels_forward: arithmetic: width, draws = (x.shape[1], len(x) // "
        "len(labels)) -> width, draws = (x.shape[1], len(x) / len(labels))"],
    "The quotient is the same number in double precision.": [
        "kernels.reference.likelihoods.module: constant: -3617 / 10670622842880000 -> -3617 / 10670622842880001",
        "kernels.reference.likelihoods.module: constant: 43867 / 5109094217170944000 -> 43867 / 5109094217170944001",
        "kernels.reference.likelihoods.module: constant: 43867 / 5109094217170944000 -> 43867 / 5109094217170943999",
        "kernels.reference.likelihoods.module: constant: -174611 / 802857662698291200000 -> -174611 / "
        "802857662698291200001",
        "kernels.reference.likelihoods.module: constant: -174611 / 802857662698291200000 -> -174611 / "
        "802857662698291199999"]}
EQUIVALENT = {mutant: reason for reason, mutants in _GROUPS.items() for mutant in mutants}

#: reason -> function -> what the names of its mutants must match, after the function
PATTERNS: dict[str, dict[str, str]] = {
    "z has the shape of eps, and a gradient that of its value.": {
        "latents.gaussian.DiagonalGaussian._path_backward":
        "name: images = slice\\(len\\(a\\.eps\\)\\) -> images = slice\\(len\\(a\\.z\\)\\)"},
    "A place that is not written holds any finite number, and whether all are finite is all that is asked.": {
        "engine.executor.ThreadedExecutor.make_backward":
        "(function|sign): .*np\\.zeros\\(\\(self\\.n.* -> .*(np\\.ones|-np\\.zeros).*"},
    "How many programs are kept, and for how long, changes speed and memory alone.": {
        "engine.executor.WholeArrayKernels._run":
        "condition: if key not in self\\._programs: -> if True:|(condition|comparison|constant): if "
        "len\\(self\\._programs\\) >= 16: -> .*"},
    "The number of no process that could run the tests, whichever.": {
        "engine.team.Team.__init__":
        "constant: self\\._(started|failed)_in = 0 -> self\\._(started|failed)_in = -?1"},
    "Where no program is unfinished there is nothing to finish.": {
        "engine.team.Team.run":
        "condition: self\\._unfinished is not None and (self\\._started_in == os\\.\\.\\.) -> \\1"},
    "The two halves of a key, in either order.": {
        "engine.executor.ThreadedExecutor.forward":
        "order: key = .*",
        "engine.executor.ThreadedExecutor.backward":
        "order: key = .*"},
    "Any negative length means: all that is left.": {
        "engine.executor.ThreadedExecutor.make_backward":
        "constant: .*reshape\\(-1\\)\\) -> .*reshape\\(-2\\)\\)"},
    "All counters start alike, at any number; a place for each, however they are arranged.": {
        "engine.team.ParallelProgram.__init__":
        ".*np\\.zeros\\(\\(threads, CACHE_LINE\\), np\\.int64\\) -> self\\._counters = (-np\\.zeros\\(\\(threads, "
        "CACHE_LINE\\), np\\.int64\\)|np\\.ones.*|np\\.zeros\\(\\(threads, CACHE_LINE\\)\\)|np\\.zeros\\(\\("
        "CACHE_LINE, threads\\), .*)"},
    "The one program of one thread may be there twice; it is the first and the last.": {
        "engine.team.ParallelProgram.__init__":
        "(condition|name|constant): (threads == 1 -> (False|wait == 1|phases == 1|threads == 0|threads == "
        "-1)|self\\.programs\\[0\\] -> self\\.programs\\[-1\\]|self\\.programs\\[0\\] if threads == 1 else .* -> "
        "Program.*)"},
    "Each program is given the scalars, in either order.": {
        "engine.team.ParallelProgram.set_scalars":
        "order: .*"},
    "A number and its negative are multiples of the same numbers.": {
        "engine.team.ParallelProgram.is_for_one":
        ".*self\\._runs \\+= 1 -> self\\._runs (-= 1|\\+= -1)"},
    "How often a thread looks before it naps changes speed alone; any post but 0 is one.": {
        "engine.team.Team._run_in_parallel":
        "(argument|constant): .*SPINS, 1\\): -> .*(1, SPINS|SPINS, 2|SPINS, -1)\\):"},
    "Minus 0 is 0, for whole numbers.": {
        "engine.team.Team._start_workers":
        "sign: np\\.zeros.* -> -np\\.zeros.*",
        "engine.recording.Program.__init__":
        "sign: self\\.table = .* -> self\\.table = -.*"},
    "Of one name the first is the last; two kinds that agree are one.": {
        "data.arrays._load_npz":
        "constant: key = .*names\\[0\\].* -> .*names\\[-1\\].*|name: images = _images\\(path, kind, .* -> "
        "images = _images\\(path, test_kind, .*"},
    "Two sets of spans overlap or do not, whichever is named first.": {
        "engine.partition.phases":
        "argument: _overlap\\(.*",
        "engine.partition._Phase.try_add":
        "argument: _overlap\\(.*"},
    "A task more than there are touches nothing.": {
        "engine.partition._Phase.__init__":
        "index: range\\(n_tasks\\) -> range\\(n_tasks \\+ 1\\) #2"},
    "The product has as many rows as its first factor.": {
        "engine.partition.phases":
        "name: \\(out, W\\) -> \\(x, W\\)"},
    "Of a kernel that needs rows, the first two arguments have as many.": {
        "engine.partition.phases":
        "constant: .*len\\(one\\[0\\]\\).* -> .*len\\(one\\[1\\]\\).*"},
    "A multiple of -1 is one of 1.": {
        "engine.partition._row_slices":
        "constant: .* else 1\\) -> .* else -1\\)",
        "engine.partition.pieces":
        "constant: multiple=1 -> multiple=-1"},
    "Which of all tasks that compute the same is the one to write it.": {
        "engine.partition._split_by_rows":
        "constant: .*i == 0\\) -> .*i == 1\\)"},
    "Of one row or one column the strides may be equal: then the weights are fewer numbers than the rows.": {
        "engine.partition._is_transposed":
        "comparison: .* < .* -> .* <= .*"},
    "There is a part of the weights for each part of the rows.": {
        "engine.partition._split_by_weights":
        "name: parts -> rows"},
    "The first two terms are added first, and either may be overwritten then.": {
        "engine.partition.add_up":
        "constant: .* = \\(total, parts\\[0\\]\\) -> .* = \\(total, parts\\[1\\]\\)"},
    "The last axis of a matrix is axis 1.": {
        "kernels.reference.flows.planar_direction_forward":
        "sign: .*axis=-1.* -> .*axis=1.*",
        "kernels.reference.flows.planar_direction_backward":
        "sign: .*axis=-1.* -> .*axis=1.*",
        "kernels.reference.priors.gaussian_log_density_forward":
        "sign: axis=-1 -> axis=1"},
    "The branches are one function in two forms, which where they meet differ by rounding.": {
        "kernels.reference.levels._rising":
        ".*a\\.real < SHIFT.* -> .*a(\\.real <=| <) SHIFT.*",
        "kernels.reference.levels._rising_slope":
        ".*a\\.real < SHIFT.* -> .*a(\\.real <=| <) SHIFT.*",
        "kernels.reference.latents.excess":
        ".*minus_abs\\(a\\)\\.real > -0\\.5.* -> .*minus_abs\\(a\\)(\\.real >= -0\\.5|\\.real > -0\\.25| > -0\\.5)\\)"},
    "A sum that begins at minus 0 is equal to one that begins at 0.": {
        "evaluate.summary._Moments.__init__":
        "sign: .*np\\.zeros\\(\\(3, images\\)\\) -> .* = -np\\.zeros\\(\\(3, images\\)\\)"},
    "What waits is looked at where the images are those of the pass before, and no pass is over slice(None, 0), "
    "whatever its end.": {
        "evaluate.summary._Groups.__init__":
        ".*\\(vae, K, slice\\(0\\), np\\.empty\\(\\(0, 0\\)\\)\\) -> \\(vae, K, slice\\(-?\\d\\), "
        "-?np\\.(empty|zeros|ones)\\(\\(\\d, \\d\\)\\)\\)"},
    "In a shape NumPy takes any negative number for -1.": {
        "evaluate.summary._Groups.add":
        "constant: .*reshape\\(.*-1.*\\) -> .*reshape\\(.*-2.*\\)"},
    "Of the largest of three numbers, and of the sums beside each other, the order is of no account.": {
        "evaluate.summary._Bounds.__call__":
        "order: for moments in \\(self\\.sampled, .*",
        "evaluate.summary.summarize":
        "order: \\(elbo\\.value, log_p\\.mean, found\\.nll\\.estimate\\(\\)\\.value\\) -> .*"},
    "The two moments are made at once, with the same shapes and the same type.": {
        "train.run.Run.restore":
        "name: needed = \\(m\\.flat\\.shape, m\\.flat\\.dtype\\.name\\) -> .*v\\.flat\\..*"},
    "Arrays are found by name, what a model and what a run says of itself have no name in common, and of two things "
    "that are wrong at once another is named first.": {
        "train.run.Run.restore":
        "order: (for name in|checkpoint\\.read\\(path,|ours = \\{|\\{\\*\\*|\\('objective').*"},
    "Any bounds near the ends of double precision.": {
        "likelihoods.levels.BetaBinomial.draw":
        "constant: .*(700|740).* -> .*(699|701|739|741).*"}}


def reason(name: str) -> str:
    """Why a mutant changes nothing; "" if it has not been explained."""
    function, _, rest = name.partition(": ")
    found = (why for why, patterns in PATTERNS.items()
             if function in patterns and re.fullmatch(patterns[function], rest, re.DOTALL))
    return EQUIVALENT.get(name) or next(found, "")
