"""What BrainLM and Brain-JEPA are trained to do: their own objective, or a target.

Shape letters: B scans, T time points, R regions, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsym_sklearn.model.brainsymphony import BrainSymphonyOutput
from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.heads import TaskHead
from bsym_sklearn.model.patches import PatchBackbone
from bsym_sklearn.training.objectives import VALIDATION_SEED, target_loss


class PatchTask(nn.Module):
    """A backbone of region-by-patch tokens; nothing is staged or of a connectome.

    Parameters
    ----------
    backbone : PatchBackbone
        Trained in place.
    """

    staged = False
    stages: tuple[str, ...] = ()
    prepare_sc = None

    def __init__(self, backbone: PatchBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.generator: torch.Generator | None = None
        self.stage: str | None = None


class PatchPretraining(PatchTask):
    """Self-supervision as the backbone was published."""

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


class PatchPrediction(PatchTask):
    """Predict one target per scan from the embeddings of regions.

    Parameters
    ----------
    backbone : PatchBackbone
        Trained in place, unless frozen.
    head : TaskHead
        Reads region embeddings.
    kind : {"classification", "regression"}
        Cross-entropy over class codes, or squared error.
    frozen : bool
        Train the head only.
    """

    def __init__(
        self, backbone: PatchBackbone, head: TaskHead, *, kind: str, frozen: bool
    ) -> None:
        super().__init__(backbone)
        self.head = head
        self.kind = kind
        self.frozen = frozen
        backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> PatchPrediction:
        """Switch to training, the backbone only if it is trained."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        return self

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
