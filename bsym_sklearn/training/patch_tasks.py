"""What BrainLM and Brain-JEPA are trained to do: their own objective, or a target.

Shape letters: B scans, T time points, R regions, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsym_sklearn.model.brainsymphony import BrainSymphonyOutput
from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.training.objectives import VALIDATION_SEED
from bsym_sklearn.training.tasks import PredictionTask, Task, target_loss


class PatchPretraining(Task):
    """Self-supervision as the backbone (a `PatchBackbone`) was published."""

    def forward(
        self,
        fmri: Tensor,
        fmri_mask: Tensor | None = None,
        *,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R)
            Scaled series.
        fmri_mask : bool Tensor of shape (B, T, R) or None
            True where a value is hidden; it is read as zero, the mean.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.
        """
        generator = self.generator
        if generator is None or not self.training:
            generator = torch.Generator(fmri.device).manual_seed(VALIDATION_SEED)
        series = FMRIInput(fmri, fmri_mask, padding).series
        return self.backbone.self_supervised_loss(series, generator, padding)

    def loss(self, prediction: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Return the loss that `forward` made."""
        return prediction.to(torch.promote_types(prediction.dtype, torch.float32))


class PatchPrediction(PredictionTask):
    """Predict one target per scan from the embeddings of regions."""

    def forward(
        self,
        fmri: Tensor,
        fmri_mask: Tensor | None = None,
        *,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the outputs (B, C); arguments as in :class:`PatchPretraining`."""
        series = FMRIInput(fmri, fmri_mask, padding).series
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            regions = self.backbone(series, padding)  # (B, R, D)
        return self.head(BrainSymphonyOutput(fused=regions))

    def loss(self, prediction: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Return the mean loss, weighted if the target has weights."""
        return target_loss(self.kind, prediction, target)
