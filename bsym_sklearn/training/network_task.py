"""What a supervised network is trained to do: predict a target of a scan.

Shape letters: B scans, T time points, R regions, C outputs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.rivals.rival import Rival
from bsym_sklearn.training.tasks import Task, target_loss


class NetworkTask(Task):
    """Predict one target per scan with a network that reads fMRI.

    Parameters
    ----------
    backbone : Rival
        Trained in place.
    kind : {"classification", "regression"}
        Cross-entropy over class codes, or squared error; plus what the network's
        paper adds.
    """

    def __init__(self, backbone: Rival, kind: str) -> None:
        super().__init__(backbone)
        self.kind = kind

    def forward(
        self,
        fmri: Tensor,
        fmri_mask: Tensor | None = None,
        *,
        padding: Tensor | None = None,
    ) -> Any:
        """Return the outputs (B, C); in training with the state of their loss.

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R)
            Scaled series.
        fmri_mask : bool Tensor of shape (B, T, R) or None
            True where a value is hidden; it is read as zero, the mean.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.
        """
        series = FMRIInput(fmri, fmri_mask, padding).series
        if self.training:
            return self.backbone.outputs_and_state(series, padding)
        return self.backbone(series, padding)

    def loss(self, prediction: Any, target: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of the target and, in training, the network's own."""
        if not self.training:
            return target_loss(self.kind, prediction, target)
        outputs, state = prediction
        labels = target["target"] if self.kind == "classification" else None
        own = self.backbone.auxiliary_loss(state, labels)
        return target_loss(self.kind, outputs, target) + own
