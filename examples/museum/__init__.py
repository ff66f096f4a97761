"""The bug museum: mistakes in a variational autoencoder, most of one line of code, and the checks that find them.

    python examples/bug_museum.py       run this first, then read

    exhibit.py     what an exhibit is, and how its line is planted in the running code and removed again
    network.py     rooms: dense layer, likelihood, whole model
    latent.py      rooms: reparameterization, KL, objective
    training.py    rooms: Adam, training and evaluation
    checks.py      the checks on gradients, distributions and bounds
    replays.py     checks that repeat in plain loops what the library computes: objectives, Adam, an epoch
"""
