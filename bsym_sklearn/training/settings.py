"""How to train, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; nothing here changes what is learned from.

    Parameters
    ----------
    max_epochs : int
        Passes over the training scans.
    batch_size : int, default=16
        Scans per step, of all processes of the fit together.
    micro_batch_size : int, "auto" or None, default=None
        Scans of a step that a process computes at once, at most; gradients are added
        up. None computes its share of the batch, ``"auto"`` as many as fit into memory.
        Draws of masks and dropout, hence the bits, depend on it.
    lr : float, default=1e-3
        AdamW's peak learning rate.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay, of weight matrices only.
    patience : int or None, default=None
        Epochs without a better validation loss before training stops; the best
        weights are kept. None trains for `max_epochs` and keeps the best, as
        training in stages always does.
    constant_lr : bool, default=False
        No warm-up and no decay.
    device : str, default="cpu"
        Torch device.
    mixed_precision : bool, default=False
        Compute in bfloat16 where that is safe, keep weights as they are.
    compile : bool, default=False
        Train with ``torch.compile``.
    n_jobs : int, default=0
        Processes that read scans beside the main one.
    verbose : int, default=0
        With 1, show a progress bar.
    checkpoint : Path or None, default=None
        File in which the state after each epoch is kept, to resume from.
    checkpoint_seconds : float, default=600.0
        Seconds after which it is kept within an epoch too, so that no more is lost.
    """

    max_epochs: int
    batch_size: int = 16
    micro_batch_size: int | str | None = None
    lr: float = 1e-3
    weight_decay: float = 0.01
    patience: int | None = None
    constant_lr: bool = False
    device: str = "cpu"
    mixed_precision: bool = False
    compile: bool = False
    n_jobs: int = 0
    verbose: int = 0
    checkpoint: Path | None = None
    checkpoint_seconds: float = 600.0
