"""How passes run on several cores.  Not needed to understand a VAE; README.md in this folder is the place to begin.
"""
