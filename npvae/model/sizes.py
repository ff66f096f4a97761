"""The number of parameters of a model, before it is built: a small file may name a model that fits into no memory.
Not part of the lesson."""
import math
import os
from collections.abc import Sequence
from typing import Any

from ..decoders import Decoder, masked_units
from ..latents.base import Flow, Prior
from ..latents.flows import steps_in
from ..latents.priors import check_beside, make_prior
from ..likelihoods.base import Likelihood
from ..params import Shapes


def count_parameters(input_dim: int, hidden: Sequence[int], latent_dim: int, decoder_hidden: Sequence[int],
                     likelihood: Likelihood, prior: str | Prior[Any], posterior: str | Flow[Any],
                     decoder: str | Decoder[Any], classes: int, missing: bool = False) -> int:
    """The number of parameters of a VAE with these arguments, which `VAE` has checked.  A layer has (in + 1) out of
    them.

    Raises ValueError for an unknown name of a prior, posterior or decoder, and for a prior that does not fit the rest.
    """
    D, Z, inputs = input_dim, latent_dim, encoder_inputs(input_dim, likelihood, missing)
    encoder_sizes, decoder_sizes = [inputs + classes, *hidden], [Z + classes, *decoder_hidden]
    h, g = encoder_sizes[-1], decoder_sizes[-1]
    layers = [*zip(encoder_sizes, encoder_sizes[1:]), *zip(decoder_sizes, decoder_sizes[1:]), (h, Z), (h, Z)]
    prior = make_prior(prior, inputs, Z, "relu")
    check_beside(prior, posterior.name if isinstance(posterior, Flow) else posterior, classes)
    others: list[Shapes] = [prior.shapes, likelihood.parameter_shapes(D)]
    if not isinstance(posterior, Flow):
        planar, autoregressive, units = steps_in(posterior, Z)
        if planar:
            layers += [(h, planar * (2 * Z + 1))]
        if autoregressive:
            layers += [(h, autoregressive * units), *autoregressive * [(Z, units), (units, 2 * Z)]]
    else:
        others.append(posterior.shapes)
    if not isinstance(decoder, Decoder):
        masked, direct = masked_units(decoder)
        layers += [(D + g, masked), (masked + g + direct * D, D)] if masked else [(g, likelihood.output_dim(D))]
    else:
        others.append(decoder.shapes)
    return (sum((n_in + 1) * n_out for n_in, n_out in layers)
            + sum(math.prod(shape) for shapes in others for shape in shapes.values()))


def encoder_inputs(input_dim: int, likelihood: Likelihood, missing: bool) -> int:
    """How many numbers the encoder sees of a row, besides its label: features, and indicators of missing cells."""
    return likelihood.features_dim(input_dim) + input_dim * missing


def check_memory(parameters: int, bytes_each: int) -> None:
    """Raises MemoryError if this machine cannot hold this number of parameters, `bytes_each`, and their gradients."""
    needed, there = 2 * bytes_each * parameters, memory()
    if needed > there:
        many = f"{parameters:,}" if parameters < 10 ** 18 else "over 10^18"
        raise MemoryError(f"a model of {many} parameters does not fit into the {there / 1e9:,.1f} GB of this machine, "
                          "with its gradients: use smaller widths, or smaller numbers in the names of its parts")


def memory() -> int:
    """The memory of this machine in bytes; 2^63 if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 ** 63
