"""The gradients of another library, at weights and noise that it is given, in a process of its own: PyTorch and JAX
change the process that imports them (rounding of subnormal numbers, threads, what a fork says).

    python contender_gradients.py torch|jax FOLDER      answers NAME.npz by NAME.answer.npz, for each of the WORKS
"""
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from contenders import works

SMALL = works.Work("small", (7, 6), 3, 20, "tanh", images=50)
DRAWN = replace(SMALL, draws=4)
MADE = replace(SMALL, units=9)
VAMP = replace(SMALL, pseudo_inputs=8)
BOTH = replace(VAMP, units=9)
WORKS = {"elbo": SMALL, "iwae": DRAWN, "made": MADE, "vamp": VAMP, "iwae vamp made": replace(BOTH, draws=4)}


def torch_(job, x, eps, ours):
    """The loss, the gradients, and npvae's in the order of this network's parameters."""
    import torch
    from contenders import pytorch
    network, noise = pytorch.network_of(job), torch.from_numpy(eps)
    torch.randn_like, torch.randn = lambda like: noise[:, 0], lambda *shape: noise
    loss = pytorch.loss_of(network, job.work)(torch.from_numpy(x))
    loss.backward()
    same = pytorch.network_of(replace(job, parameters=ours))
    return (loss.item(), [tensor.grad.numpy() for tensor in network.parameters()],
            [tensor.detach().numpy() for tensor in same.parameters()])


def jax_(job, x, eps, ours):
    import jax
    from contenders import jax_ as contender
    jax.random.normal = lambda key, shape: eps.reshape(shape)
    loss, gradients = jax.jit(jax.value_and_grad(lambda p: contender._loss(p, job.work, x, None)))(job.parameters)
    return float(loss), [np.asarray(gradients[name]) for name in ours], [*ours.values()]


def main():
    library, folder = sys.argv[1:]
    for name, work in WORKS.items():
        with np.load(Path(folder, f"{name}.npz")) as given:
            arrays = dict(given)
        x, eps = arrays.pop("x"), arrays.pop("eps")
        ours = {key.removeprefix("d "): arrays.pop(key) for key in [*arrays] if key.startswith("d ")}
        loss, found, expected = {"torch": torch_, "jax": jax_}[library](
            works.Job(work, x, arrays, 0, 1, "", {}), x, eps, ours)
        pairs = {f"{which} {i}": array for which, values in (("theirs", found), ("ours", expected))
                 for i, array in enumerate(values)}
        np.savez(Path(folder, f"{name}.answer.npz"), loss=loss, **pairs)


if __name__ == "__main__":
    main()
