"""What a trainer expects of a task, and what all tasks with a target share.

A task is a module that skorch trains: ``forward`` makes predictions of a batch,
``loss`` judges them. Shape letters: B scans, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.heads import TaskHead


class Task(nn.Module):
    """A backbone to train.

    Parameters
    ----------
    backbone : nn.Module
        Trained in place.

    Attributes
    ----------
    generator : torch.Generator or None
        Draws what training draws; set by the trainer.
    stage : str or None
        The only objective to train, or None for all; set by the trainer.
    staged : bool
        Whether one objective is trained after the other.
    """

    staged = False

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.generator: torch.Generator | None = None
        self.stage: str | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the objectives, if there are several."""
        return ()

    @property
    def prepare_sc(self) -> Callable[[np.ndarray], dict[str, np.ndarray]] | None:
        """What to compute once per connectome, None for nothing."""
        return None


class PredictionTask(Task):
    """A backbone and a head that predict one target per scan.

    Parameters
    ----------
    backbone : nn.Module
        Trained in place, unless frozen.
    head : TaskHead
        Reads the backbone's output.
    kind : {"classification", "regression"}
        Cross-entropy over class codes, or squared error.
    frozen : bool, default=False
        Train the head only; the backbone is then used without dropout.
    """

    def __init__(
        self, backbone: Any, head: TaskHead, *, kind: str, frozen: bool = False
    ) -> None:
        super().__init__(backbone)
        self.head = head
        self.kind = kind
        self.freeze(frozen)

    def freeze(self, frozen: bool) -> None:
        """Train the head only, or the backbone too."""
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, the backbone only if it is trained."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        return self


def target_loss(kind: str, prediction: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Return the mean loss of predictions of a target.

    Parameters
    ----------
    kind : {"classification", "regression"}
        Cross-entropy over class codes, or squared error.
    prediction : Tensor of shape (B, C)
        Logits, or values with C = 1.
    target : dict of str to Tensor
        ``"target"`` (B,), and ``"weight"`` (B,) if scans are weighted.

    Examples
    --------
    >>> import torch
    >>> target_loss("regression", torch.ones(2, 1), {"target": torch.zeros(2)})
    tensor(1.)
    """
    # mixed precision predicts in bfloat16, too coarse to add up
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    if kind == "classification":
        losses = F.cross_entropy(prediction, target["target"], reduction="none")
    else:
        losses = (prediction.squeeze(1) - target["target"]).square()
    if "weight" not in target:
        return losses.mean()
    # Weights have mean one over the training scans: dividing by the batch
    # size, not its weight, keeps a scan's influence the same in every batch.
    return (losses * target["weight"]).mean()
