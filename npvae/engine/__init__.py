"""How passes run on all cores.  Beside the lesson; README.md in this folder is the place to begin.
"""
