# mypy: disable-error-code="import-not-found"
"""PyTorch, in its fastest form on a CPU: modules, float32 images gathered by index, the library's cross-entropy with a
sum, and Adam with fused=True, which was faster than foreach and than the loop in all works tried.

Subnormal numbers are set to zero, as in npvae and JAX: on an Intel Xeon, IWAE with K = 50 then takes 11 ms a step
instead of 29.  A MADE decoder multiplies weights by masks, in separate products for x and for h, which is as fast as
one for both.

"compiled" passes the loss function to torch.compile, which compiles its backward pass, too, for the sizes of full and
last batches; the optimizer is the fused one.

The time of an epoch includes gathering, noise, loss, backward pass, Adam, and the sum of the losses, read at the end.
"""
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .works import BETA1, BETA2, EPS, LR, Array, Job, Work, made_masks, order

if TYPE_CHECKING:
    from .worker import Turns

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def versions() -> dict[str, str]:
    """The versions of what does the arithmetic."""
    return {"torch": torch.__version__}


def _mlp(sizes: list[int], activation: str) -> Any:
    layers = [(nn.Linear(n_in, n_out), _ACTIVATIONS[activation]()) for n_in, n_out in zip(sizes, sizes[1:])]
    return nn.Sequential(*(module for pair in layers for module in pair))


class _MADE(nn.Module):  # type: ignore[misc, unused-ignore]
    """Logits of pixels, each given the pixels before it and h; x (B, D), h (B, H) or (B, K, H)."""

    first_mask: Any
    last_mask: Any

    def __init__(self, n_in: int, work: Work) -> None:
        super().__init__()
        D, H = work.input_dim, work.units
        self.first, self.last = nn.Linear(D, H), nn.Linear(H, D)
        self.first_by_h, self.last_by_h = nn.Linear(n_in, H, bias=False), nn.Linear(n_in, D, bias=False)
        self.activation = _ACTIVATIONS[work.activation]()
        for name, mask in zip(("first_mask", "last_mask"), made_masks(work)):
            self.register_buffer(name, torch.from_numpy(mask.T.copy()))

    def forward(self, x: Any, h: Any) -> Any:
        by_x = functional.linear(x, self.first.weight * self.first_mask, self.first.bias)
        made = self.activation((by_x if h.dim() == 2 else by_x[:, None]) + self.first_by_h(h))
        return functional.linear(made, self.last.weight * self.last_mask, self.last.bias) + self.last_by_h(h)


class _Network(nn.Module):  # type: ignore[misc, unused-ignore]
    """The network of a work; x (B, D), z (B, K, Z)."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        up, down = [work.input_dim, *work.hidden], [work.latent, *work.hidden[::-1]]
        self.encoder, self.decoder = _mlp(up, work.activation), _mlp(down, work.activation)
        self.mu, self.logvar = nn.Linear(up[-1], work.latent), nn.Linear(up[-1], work.latent)
        self.output = _MADE(down[-1], work) if work.units else nn.Linear(down[-1], work.input_dim)
        self.draws = work.draws
        if work.pseudo_inputs:
            self.pseudo_inputs = nn.Parameter(torch.empty(work.pseudo_inputs, work.input_dim))

    def encode(self, x: Any) -> tuple[Any, Any]:
        """mu and logvar (B, Z)."""
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def logits(self, x: Any, z: Any) -> Any:
        """Logits of the pixels; x is an input only of a MADE decoder."""
        h = self.decoder(z)
        return self.output(x, h) if isinstance(self.output, _MADE) else self.output(h)

    def elbo(self, x: Any) -> Any:
        """Minus the evidence lower bound, a mean over the batch."""
        mu, logvar = self.encode(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        nll = functional.binary_cross_entropy_with_logits(self.logits(x, z), x, reduction="sum")
        return (nll + 0.5 * torch.sum(mu * mu + logvar.exp() - 1 - logvar)) / len(x)

    def log_weights(self, x: Any, draws: int) -> Any:
        """log p(x, z) - log q(z|x) at z drawn from q(z|x), (B, K)."""
        mu, logvar = (part[:, None] for part in self.encode(x))
        eps = torch.randn(len(x), draws, mu.shape[-1])
        z = mu + torch.exp(0.5 * logvar) * eps
        logits = self.logits(x, z)
        nll = functional.binary_cross_entropy_with_logits(logits, x[:, None].expand_as(logits), reduction="none")
        if hasattr(self, "pseudo_inputs"):
            return -nll.sum(-1) + self.vamp(z) + 0.5 * torch.sum(eps * eps + logvar, -1)
        return -nll.sum(-1) - 0.5 * torch.sum(z * z - eps * eps - logvar, -1)

    def vamp(self, z: Any) -> Any:
        """log p(z) of a VampPrior, (B, K), without log 2 pi, which cancels against that of log q.

        With (z - mu)^2 expanded it is two matrix products, faster than B K C Z differences and less exact.
        """
        mu, logvar = self.encode(torch.sigmoid(self.pseudo_inputs))
        precision = torch.exp(-logvar)
        squares = (z * z) @ precision.T - 2 * z @ (mu * precision).T + (mu * mu * precision + logvar).sum(-1)
        return torch.logsumexp(-0.5 * squares, -1) - math.log(len(mu))

    def iwae(self, x: Any) -> Any:
        """Minus the importance-weighted bound, a mean over the batch."""
        return math.log(self.draws) - torch.logsumexp(self.log_weights(x, self.draws), 1).mean()

    def sampled_elbo(self, x: Any) -> Any:
        """Minus the evidence lower bound, where the KL term is not known in closed form."""
        return -self.log_weights(x, 1).mean()


def _prepare(job: Job) -> None:
    """Settings of the whole process."""
    torch.compiler.reset()      # otherwise the compiler gives up after a number of networks and sizes
    torch.set_flush_denormal(True)
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)


def network_of(job: Job) -> _Network:
    """The network, with the initial weights that all contenders have: npvae's W is (in, out), PyTorch's (out, in)."""
    network = _Network(job.work)
    layers: dict[str, list[Any]] = {"mu": [network.mu], "logvar": [network.logvar], "output": [network.output]}
    for name, mlp in (("encoder", network.encoder), ("decoder", network.decoder)):
        layers |= {f"{name}.{i}": [layer] for i, layer in enumerate(mlp[::2])}
    if job.work.units:      # npvae has one matrix for both layers, one above the other
        made = network.output
        layers |= {"made": [made.first, made.first_by_h], "output": [made.last, made.last_by_h]}
    with torch.no_grad():
        for name, parts in layers.items():
            W, b = (torch.from_numpy(job.parameters[f"{name}.{kind}"]) for kind in "Wb")
            for layer, below in zip(parts, W.split([layer.in_features for layer in parts])):
                layer.weight.copy_(below.T)
            parts[0].bias.copy_(b)
        if job.work.pseudo_inputs:
            network.pseudo_inputs.copy_(torch.from_numpy(job.parameters["prior.pseudo_inputs"]))
    return network


def loss_of(network: _Network, work: Work) -> Any:
    """The loss of a work as a function of the images."""
    return network.iwae if work.draws > 1 else network.sampled_elbo if work.sampled else network.elbo


def _images(pixels: Array) -> Any:
    return torch.from_numpy(pixels).to(torch.float32).div_(255)


def train(job: Job, turns: "Turns") -> None:
    """At each turn, an epoch."""
    _prepare(job)
    network, x, work = network_of(job), _images(job.pixels), job.work
    optimizer = torch.optim.Adam(network.parameters(), LR, (BETA1, BETA2), EPS, fused=True)
    loss_of_batch = loss_of(network, work)
    if job.variant == "compiled":
        loss_of_batch = torch.compile(loss_of_batch, dynamic=False)
    go, epoch = turns.wait(), 0
    while go:
        index = torch.from_numpy(order(job.seed, epoch, work.images))
        began = time.perf_counter()
        total = torch.zeros(())
        for rows in index.split(work.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of_batch(x[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        mean = total.item() / work.images
        go, epoch = turns.done(seconds=time.perf_counter() - began, loss=mean), epoch + 1


def likelihood(job: Job, turns: "Turns") -> None:
    """At each turn, log p(x) of every image, with `block` draws at a time."""
    samples, block = job.options["samples"], job.options["block"]
    _prepare(job)
    network, x = network_of(job), _images(job.pixels)
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
