"""The debugging lab: a training run that looks fine, and a bug in it.  Which check will catch it?

The bugs are exhibits of the museum (`examples/bug_museum.py`): each is planted in npvae while a small VAE trains on
real digits.  You see the losses and the code with the bug in it, and choose a check; then all of them are run.
"""
import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))      # the museum

import bug_museum  # noqa: E402
from museum.exhibit import Exhibit, planted, wrong_source  # noqa: E402

from npvae import ELBO, VAE, fit, load_mnist  # noqa: E402

CASES = (
    "exp(logvar) taken for sigma", "KL: 1/2 forgotten in dlogvar", "KL: from p to q",
    "one head forgotten where paths meet", "epsilon uniform, with the right variance", "db as a mean over the batch",
    "epsilon scaled by 0.01", "IWAE: mean of the logarithms", "epsilon forgotten in dlogvar", "KL: 1/2 forgotten",
    "one epsilon for all images", "Bernoulli: black and white swapped", "Box-Muller: the cosine twice")
CHOICES = ("complex step", "sampler variance", "score", "Monte-Carlo KL", "independent noise",
           "draws follow the density", "IWAE grows with K")
EPOCHS, IMAGES = 4, 2000


def exhibit_of(name: str) -> Exhibit:
    return next(exhibit for room in bug_museum.ROOMS.values() for exhibit in room if exhibit.name == name)


def losses(exhibit: Exhibit) -> list[float]:
    """Test losses of a short training run on the code as it is now."""
    x_train, _, x_test, _ = load_mnist()
    setting = exhibit.setting
    elbo = isinstance(setting.objective, ELBO)
    vae = VAE(784, (64,), 10, setting.activation, setting.likelihood, kernels="numpy")
    history = fit(vae, x_train[:IMAGES], x_test[:500], EPOCHS, 50, objective=ELBO() if elbo else setting.objective,
                  n_samples=1 if elbo else 5)
    return [float(str(metrics["test_loss"])) for metrics in history]


def code(exhibit: Exhibit) -> Iterator[str]:
    """The functions that hold the bug, with it, without docstrings and comments: those say what is right."""
    for function in dict.fromkeys(changed for changed, _, _ in exhibit.changes):
        tree = ast.parse(wrong_source(function, exhibit))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                node.body = node.body[1:]
        yield f"# {inspect.unwrap(function).__module__}"
        yield from ast.unparse(tree).splitlines()


def findings(exhibit: Exhibit) -> dict[str, str]:
    """What each of the checks finds while the bug is planted; "" for nothing."""
    with planted(exhibit):
        return {check: bug_museum.run(check, exhibit.setting) for check in CHOICES}


def case(number: int, exhibit: Exhibit, ask: Callable[[str], str]) -> bool:
    """One bug, from its losses to its unmasking.  Was the student's check one that catches it?"""
    with planted(exhibit), np.errstate(all="ignore"):
        found = losses(exhibit)
    print(f"\n--- case {number}: a VAE learns {IMAGES} digits; test loss after each epoch "
          f"{' '.join(f'{loss:.1f}' for loss in found)}")
    print("It falls as it should.  And yet there is a bug in this code:\n")
    print("\n".join(f"    {line}" for line in code(exhibit)))
    print("\nWhich of these checks will catch it?")
    for letter, check in zip("abcdefg", CHOICES):
        meaning = " ".join((bug_museum.CHECKS[check].__doc__ or "").split())
        print(textwrap.fill(f"  {letter}  {check:24s} {meaning}", 110, subsequent_indent=30 * " "))
    answer = ask("your answer, a letter: ").strip().lower()
    while answer not in list("abcdefg"):
        print("Answer with one letter, a to g.")
        answer = ask("your answer, a letter: ").strip().lower()
    chosen = CHOICES["abcdefg".index(answer)]
    print("They are run now:")
    caught = findings(exhibit)
    for check, says in caught.items():
        print(f"  {'->' if check == chosen else '  '} {check:24s} {says or 'finds nothing'}")
    right = bool(caught[chosen])
    print(f"{'Yes' if right else 'No'}: {chosen} {'catches it' if right else 'does not see it'}.")
    print(f"The bug: {exhibit.name}.")
    for is_right, is_wrong in exhibit.lines():
        print(f"     says        {is_wrong}\n     should say  {is_right}")
    print(f"Without it the losses are {' '.join(f'{loss:.1f}' for loss in losses(exhibit))}.")
    if not caught["complex step"]:
        print("No gradient check can see it: the gradient is right, of a wrong objective or from wrong noise.")
    if exhibit.shipped:
        print(f"Who had it: {exhibit.shipped}.")
    return right


def run(seed: int, cases: int, ask: Callable[[str], str] = input) -> int:
    """As many cases, in an order of the seed's."""
    order = np.random.default_rng(seed).permutation(len(CASES))[:cases]
    score = 0
    try:
        for number, index in enumerate(order, 1):
            score += case(number, exhibit_of(CASES[index]), ask)
    except EOFError:
        print("\nNo more answers: the lab ends here.")
        return 1
    print(f"\n{score} of {len(order)} bugs caught by the check you chose.")
    return 0
