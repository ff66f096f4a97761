"""Training: shuffled batches, one Adam step each, an evaluation per epoch.  Read after `optim.py`.

    rows        a data set, from which batches are gathered; the streams of random numbers
    run         the state of a run, and how it is saved and resumed exactly
    callbacks   code that is called between steps: checkpoints, early stopping, metrics, a progress bar
    loop        `fit`, and one training step
"""
from .callbacks import Callback, Checkpoint, EarlyStopping, MetricsLog, Progress
from .loop import fit, new_run, train_step
from .rows import BINARIZE_ONCE, Rows, stream
from .run import Metrics, Run, saved_state

__all__ = [
    "Callback", "Checkpoint", "EarlyStopping", "MetricsLog", "Progress", "fit", "new_run", "train_step",
    "BINARIZE_ONCE", "Rows", "stream", "Metrics", "Run", "saved_state"]
