# mypy: disable-error-code="import-not-found"
"""PyTorch, in the form found fastest on a processor: modules, float32 images gathered by index, Adam with fused=True
(faster than foreach and than the loop in each work it was tried on), the summed cross-entropy of the library itself.

"compiled" hands the loss function to torch.compile (which compiles its backward pass too), for the sizes of a full and
of the last batch; the optimizer is the fused one.

Measured per epoch: gathering, noise, loss, backward pass, Adam, and the sum of the losses, read once at the end.
"""
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .works import BETA1, BETA2, EPS, LR, Array, Job, Work, order

if TYPE_CHECKING:
    from .worker import Turns

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def versions() -> dict[str, str]:
    """Of what does the arithmetic."""
    return {"torch": torch.__version__}


def _mlp(sizes: list[int], activation: str) -> Any:
    layers = [(nn.Linear(n_in, n_out), _ACTIVATIONS[activation]()) for n_in, n_out in zip(sizes, sizes[1:])]
    return nn.Sequential(*(module for pair in layers for module in pair))


class _Network(nn.Module):  # type: ignore[misc, unused-ignore]
    """The network of a work; x (B, D), z (B, K, Z)."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        up, down = [work.input_dim, *work.hidden], [work.latent, *work.hidden[::-1]]
        self.encoder, self.decoder = _mlp(up, work.activation), _mlp(down, work.activation)
        self.mu, self.logvar = nn.Linear(up[-1], work.latent), nn.Linear(up[-1], work.latent)
        self.output = nn.Linear(down[-1], work.input_dim)
        self.draws = work.draws

    def elbo(self, x: Any) -> Any:
        """Minus the evidence lower bound, a mean over the batch."""
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        nll = functional.binary_cross_entropy_with_logits(self.output(self.decoder(z)), x, reduction="sum")
        return (nll + 0.5 * torch.sum(mu * mu + logvar.exp() - 1 - logvar)) / len(x)

    def log_weights(self, x: Any, draws: int) -> Any:
        """log p(x, z) - log q(z|x) at z drawn from q(z|x), (B, K)."""
        h = self.encoder(x)
        mu, logvar = self.mu(h)[:, None], self.logvar(h)[:, None]
        eps = torch.randn(len(x), draws, mu.shape[-1])
        z = mu + torch.exp(0.5 * logvar) * eps
        logits = self.output(self.decoder(z))
        nll = functional.binary_cross_entropy_with_logits(logits, x[:, None].expand_as(logits), reduction="none")
        return -nll.sum(-1) - 0.5 * torch.sum(z * z - eps * eps - logvar, -1)

    def iwae(self, x: Any) -> Any:
        """Minus the importance-weighted bound, a mean over the batch."""
        return math.log(self.draws) - torch.logsumexp(self.log_weights(x, self.draws), 1).mean()


def _network(job: Job) -> _Network:
    """The network, its weights those that all start with: npvae's W is (in, out), PyTorch's (out, in)."""
    torch.compiler.reset()      # else the compiler gives up after so many networks and sizes
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    network = _Network(job.work)
    layers: dict[str, Any] = {"mu": network.mu, "logvar": network.logvar, "output": network.output}
    for name, mlp in (("encoder", network.encoder), ("decoder", network.decoder)):
        layers |= {f"{name}.{i}": layer for i, layer in enumerate(mlp[::2])}
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(torch.from_numpy(job.parameters[f"{name}.W"].T.copy()))
            layer.bias.copy_(torch.from_numpy(job.parameters[f"{name}.b"]))
    return network


def _images(pixels: Array) -> Any:
    return torch.from_numpy(pixels).to(torch.float32).div_(255)


def train(job: Job, turns: "Turns") -> None:
    """Epochs, one at a turn."""
    network, x, work = _network(job), _images(job.pixels), job.work
    optimizer = torch.optim.Adam(network.parameters(), LR, (BETA1, BETA2), EPS, fused=True)
    loss_of = network.iwae if work.draws > 1 else network.elbo
    if job.variant == "compiled":
        loss_of = torch.compile(loss_of, dynamic=False)
    go, epoch = turns.wait(), 0
    while go:
        index = torch.from_numpy(order(job.seed, epoch, work.images))
        began = time.perf_counter()
        total = torch.zeros(())
        for rows in index.split(work.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        mean = total.item() / work.images
        go, epoch = turns.done(seconds=time.perf_counter() - began, loss=mean), epoch + 1


def likelihood(job: Job, turns: "Turns") -> None:
    """log p(x) of every image, at each turn, so many draws at a time."""
    samples, block = job.options["samples"], job.options["block"]
    network, x = _network(job), _images(job.pixels)
    log_weights = network.log_weights

    def log_p(image: Any) -> Any:
        parts = [torch.logsumexp(log_weights(image, block), 1) for _ in range(samples // block)]
        return torch.logsumexp(torch.stack(parts), 0) - math.log(samples)

    with torch.inference_mode():
        if job.variant == "compiled":
            log_weights = torch.compile(log_weights, dynamic=False)
        log_p(x[:1])
        go = turns.wait()
        while go:
            began = time.perf_counter()
            values = np.array(torch.cat([log_p(image) for image in x.split(1)]))
            go = turns.done(seconds=time.perf_counter() - began, values=values.tolist())
