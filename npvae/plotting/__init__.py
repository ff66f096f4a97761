"""Pictures, as matplotlib figures.  Not part of the lesson.

    figures    the tools: tiles, axes, colours
    charts     curves, bars and points: the course of training, the latent space
    tables     columns, correlations, curves: rows that are no images
    pictures   pictures made of images, and the whole set of a run
"""
from .charts import kl_per_dimension, latent_scatter, learning_curves
from .figures import png, spread, tile_figure
from .pictures import (
    PICTURES, Autoencoder, class_samples, interpolation, manifold, manifold_grid, pseudo_inputs,
    reconstructions, same_z, samples, save_pictures, traversals)
from .tables import columns_and_samples, correlations, curves, curves_drawn

__all__ = [
    "columns_and_samples", "correlations", "curves", "curves_drawn", "kl_per_dimension", "latent_scatter",
    "learning_curves", "spread", "tile_figure", "PICTURES", "Autoencoder", "class_samples", "interpolation",
    "manifold", "manifold_grid", "png", "pseudo_inputs", "reconstructions", "same_z", "samples", "save_pictures",
    "traversals"]
