"""The bug museum: mistakes in a variational autoencoder, each one line of code, and the check that finds it.

    python examples/bug_museum.py       runs it; begin there, then read

    exhibit.py     what an exhibit is, and how its line gets into the running code and out again
    network.py     rooms: dense layer, likelihood, whole model
    latent.py      rooms: reparameterization, KL, objective
    training.py    rooms: Adam, training and evaluation
    checks.py      the checks on gradients, distributions and bounds
    replays.py     the checks that do by hand what the library does: objectives, Adam, an epoch
"""
