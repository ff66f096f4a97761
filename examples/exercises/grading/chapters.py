"""All exercises, in order.  A hint asks a question; it never gives the solution."""
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:      # without NumPy and npvae: the program itself starts at once
    from .answers import Numbers

HERE = Path(__file__).resolve().parents[1]
CHAPTERS = HERE.parent / "derivations"


@dataclass(frozen=True)
class Part:
    """One function to write."""

    name: str      # of the check in grading/, too
    minutes: int      # for somebody who has read the chapter
    difficulty: int      # 1 a line that the chapter states, 2 a derivation, 3 something the chapter does not show
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One file.

    checks : the module of grading/ with the numbers and a check for each part
    needs : functions of earlier files that it uses, such as "03.dense"
    slow : parts that take minutes, checked when the others are right
    """

    key: str
    file: str
    title: str
    checks: str
    parts: tuple[Part, ...]
    needs: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()

    @property
    def minutes(self) -> int:
        return sum(part.minutes for part in self.parts)

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"grading.{self.checks}")

    def numbers_of(self, seed: int) -> "Numbers":
        """The numbers in a student's file; seed 0 has those that stand in the file here."""
        import numpy as np
        drawn: "Numbers" = self.module.numbers(np.random.default_rng([seed, *self.key.encode()]))
        here = numbers_in((HERE / self.file).read_text(encoding="utf-8"))
        return drawn if seed else {name: here[name] for name in drawn}

    def text_for(self, seed: int, source: Path = HERE) -> str:
        """The file with a student's numbers in it."""
        text = (source / self.file).read_text(encoding="utf-8")
        for name, value in self.numbers_of(seed).items():
            text = re.sub(rf"^{name} = (\([^)]*\)|\S+)", f"{name} = {value}", text, count=1, flags=re.MULTILINE)
        return text

    def equations(self, part: str) -> str:
        """What stands in the blank: the equations of the chapter that it is about."""
        found = re.search(rf'NotImplementedError\("{part}, (.*)"\)', (HERE / self.file).read_text(encoding="utf-8"))
        return found[1] if found else ""

    def chapter(self) -> str:
        """The file of its chapter, if there is one with its number."""
        return next((path.name for path in sorted(CHAPTERS.glob(f"{self.key}-*.md"))), "")


def numbers_in(text: str) -> "Numbers":
    """NAME = number, or NAME = (number, number), at the start of a line."""
    found: "Numbers" = {}
    for name, several, one in re.findall(r"^([A-Z_]+) = (?:\(([^)]*)\)|(-?[\d.]+))", text, re.MULTILINE):
        found[name] = tuple(float(value) for value in several.split(",")) if several else (
            float(one) if "." in one else int(one))
    return found


EXERCISES = {exercise.key: exercise for exercise in (
    Exercise("01", "ex01_model.py", "a model, its evidence and its bound", "model", (
        Part("log_marginal", 10, 1, "x = WEIGHT z + BIAS + noise: what is the variance of a sum?"),
        Part("posterior", 15, 2, "Collect the powers of z in log p(z) + log p(x|z). Which normal has them?"),
        Part("elbo", 15, 2, "E_q of a square is the square of the mean, and one more term. Which?"),
        Part("gap", 15, 2, "It is a KL of two normal distributions, and zero where q is the posterior."))),
    Exercise("02", "ex02_graph.py", "the chain rule on a graph", "graph", (
        Part("by_hand", 15, 1, "Go back from L. How many arrows leave u, and what comes back along each?"),
        Part("jacobian", 10, 2, "What does a vector-Jacobian product give for dy = (1, 0, 0, ...)?"),
        Part("softmax_backward", 20, 3, "Write J for i = j and for i other than j; then multiply dy by it."),
        Part("quadratic_backward", 15, 2, "Write y as a double sum. Where does x_i stand in it?"))),
    Exercise("03", "ex03_dense.py", "the dense layer", "dense", (
        Part("dense", 5, 1, "One row of x gives one row of y. Which shapes have x, W and b?"),
        Part("dense_backward", 20, 1, "Each gradient has the shape of its tensor. Which index is summed?"),
        Part("relu", 5, 1, "Keep the type of the array: what does a comparison of arrays give?"),
        Part("relu_backward", 5, 1, "Where was the output zero, and what did its input matter there?"),
        Part("leaky_relu_backward", 5, 1, "The slope on each side is that of the forward function."),
        Part("tanh_backward", 10, 1, "Write the derivative with y alone. What is it at y = 0, and at y = 1?"),
        Part("tied_backward", 25, 3, "W is read twice. Give its two copies two names; what is then added?"))),
    Exercise("04", "ex04_likelihood.py", "the likelihoods", "likelihood", (
        Part("softplus", 10, 1, "Take out max(t, 0). What is left never overflows."),
        Part("bernoulli_nll", 15, 1, "What are log p and log(1 - p) in terms of softplus?"),
        Part("bernoulli_nll_backward", 15, 1, "What is the derivative of softplus?"),
        Part("gaussian_nll", 15, 1, "Take the log of the density. How many pixels does its normaliser serve?"),
        Part("gaussian_nll_backward", 20, 2,
             "Differentiate both terms by logvar. Which of them counts pixels?"),
        Part("best_logit", 10, 2, "The cost is softplus(l) - m l. Where is its derivative zero?"))),
    Exercise("05", "ex05_kl.py", "the KL term", "kl", (
        Part("gaussian_kl", 15, 1, "It is zero for mu = 0 and logvar = 0, and nowhere negative. Is yours?"),
        Part("gaussian_kl_backward", 10, 1, "Both gradients vanish at mu = 0 and logvar = 0."),
        Part("log_ratio", 15, 2, "Write both log-densities; (z - mu) / sigma has a name already."),
        Part("kl_to_prior", 20, 2, "In units of the prior: which mean and which variance has q there?"),
        Part("kl_to_prior_backward", 15, 2, "Both gradients vanish where q equals this prior."))),
    Exercise("06", "ex06_reparameterization.py", "the reparameterization trick", "reparameterization", (
        Part("reparameterize", 5, 1, "logvar is log sigma^2. What, then, is sigma?"),
        Part("reparameterize_backward", 10, 1, "What is the derivative of e^(t/2)?"),
        Part("score_estimates", 15, 2, "f times the derivative of log q(z) by mu. What is that?"),
        Part("variances", 25, 3, "E[g^2] - E[g]^2. Odd powers of eps have the mean zero."),
        Part("exponential_draw", 10, 2, "P(z <= t) = 1 - e^(-rate t). For which t is that u?"),
        Part("exponential_backward", 10, 2, "Hold u and write z as a function of the rate."))),
    Exercise("07", "ex07_backward.py", "the whole backward pass", "backward", (
        Part("forward", 20, 1, "nll and kl have one number for each image. When is the mean taken?"),
        Part("backward", 60, 3, "Read forward upwards. Where do two paths meet? Which share has an image?"),
        Part("image_gradient", 20, 2, "Look for x in forward: where is it read?")),
        needs=("03.dense", "03.dense_backward", "03.relu", "03.relu_backward", "04.bernoulli_nll",
               "04.bernoulli_nll_backward", "05.gaussian_kl", "05.gaussian_kl_backward", "06.reparameterize",
               "06.reparameterize_backward")),
    Exercise("08", "ex08_adam.py", "Adam", "adam", (
        Part("adam_step", 20, 1, "Compute the first step by hand: how large is it, whatever the gradient?"),
        Part("two_steps", 15, 1, "m and v first, then their corrections, with the power of this step."),
        Part("cosine_lr", 10, 1, "At t = 0, steps / 2 and steps: what should come out?"),
        Part("amsgrad_step", 15, 2, "Entry by entry: what is compared with what, and what is kept?"))),
    Exercise("09", "ex09_checking.py", "checking a gradient", "checking", (
        Part("central_difference", 15, 1, "One entry moves at a time, to both sides. How far apart are they?"),
        Part("two_step_sizes", 15, 2, "Write both errors as c h^2. Which combination has none?"),
        Part("complex_step", 10, 1, "Expand f(theta + i h). In which part is the derivative alone?"),
        Part("relative_error", 10, 1, "What if one entry is tiny beside its neighbours?"),
        Part("gradient_is_right", 15, 2, "You have written all that it needs. What does it do with NaN?"),
        Part("sampler_is_honest", 25, 3, "How far may a mean of n draws lie from the truth by chance?"))),
    Exercise("train", "train.py", "a VAE that learns MNIST", "training", (
        Part("initialize", 15, 1, "Which layers stand before a ReLU? What is v of the others?"),
        Part("batches", 10, 1, "Shuffle once; then cut."),
        Part("train", 45, 2, "Are t, m and v kept from epoch to epoch? Is the noise fresh? Is beta 1?")),
        needs=("07.forward", "07.backward", "08.adam_step"), slow=("train",)))}
