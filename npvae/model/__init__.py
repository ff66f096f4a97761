"""The variational autoencoder itself.  Read after `objectives.py`.

    vae            `VAE`: forward, and backward as its mirror image directly below it
    hierarchical   models with two stochastic layers, as in the IWAE paper
    sizes          the number of parameters of a model, before it is built
"""
from .hierarchical import active_units_per_layer, hierarchical_vae
from .vae import DTYPES, VAE, load_with_manifest

__all__ = [
    "active_units_per_layer", "hierarchical_vae", "DTYPES", "VAE", "load_with_manifest"]
