"""What a model is trained to do: predict what is hidden, or a target.

Shape letters: B scans, T time points, R regions, D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bsym_sklearn.model.brainsymphony import BrainSymphony, BrainSymphonyOutput
from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.layers import initialize_weights
from bsym_sklearn.training.masking import (
    choose_edges,
    hide_edges,
    mask_points,
    mask_regions,
    mask_time_points,
    most_hidden,
)
from bsym_sklearn.training.tasks import PredictionTask, Task, target_loss

FMRI_STAGES = ("regions", "time_points", "points", "reconstruction")
SC_STAGES = ("edges",)
FUSED_STAGES = ("fused_reconstruction", "fused_edges")
EDGE_RATIO = 0.2  # share of the edges to hide, as released
VALIDATION_SEED = 20250623  # masks of the validation loss: the same every epoch


class HiddenPrediction(NamedTuple):
    """Predictions of values that the model did not see.

    Parameters
    ----------
    prediction, target : Tensor of the same shape
        Values.
    hidden : bool Tensor of the same shape
        Where they are judged.
    """

    prediction: Tensor
    target: Tensor
    hidden: Tensor

    def error(self) -> Tensor:
        """Return the mean squared error over the hidden values, 0 without any."""
        error = (self.prediction - self.target).masked_fill(~self.hidden, 0)
        return error.square().sum() / self.hidden.sum().clamp(min=1)


class MaskedTask(Task):
    """Self-supervision: hide parts of a scan and predict them from the rest.

    One pass hides whole regions, whole time points, single points and edges.
    Each stream predicts what it was made for (regions: spatial; time points:
    temporal; points: context; edges: structural), the Perceiver everything in
    the series, and the fused embeddings both series and edges, which is what
    trains the gate. A hidden value reaches no prediction.

    Parameters
    ----------
    backbone : BrainSymphony
        Trained in place.
    mask_ratio : float, default=0.15
        Share of the regions, time points and points to hide, each, in (0, 1).
    span : int, default=1
        Length of hidden runs, in time points.
    staged : bool, default=False
        Train one objective after the other instead of all at once.
    generator : torch.Generator
        Draws the weights of the two extra decoders.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314. The
       released code hides nothing and compares scans with each other; this is
       what its text describes.
    """

    def __init__(
        self,
        backbone: BrainSymphony,
        *,
        mask_ratio: float = 0.15,
        span: int = 1,
        staged: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__(backbone)
        self.staged = staged
        self.mask_ratio = mask_ratio
        self.span = span
        self.decoders = nn.ModuleDict()
        if backbone.fmri is not None:
            with torch.device("meta"):
                self.decoders["regions"] = nn.Linear(
                    backbone.dim, backbone.fmri.spatial.n_features
                )
                self.decoders["time_points"] = nn.Linear(
                    backbone.dim, backbone.n_regions
                )
            self.decoders.float().to_empty(device="cpu")
            initialize_weights(self.decoders, generator)

    # No `prepare_sc`: it would know the edges that a step hides.

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the objectives that the backbone can learn."""
        return self.stage_names(self.backbone)

    @staticmethod
    def stage_names(backbone: BrainSymphony) -> tuple[str, ...]:
        """Return the names of the objectives that `backbone` can learn."""
        fmri = FMRI_STAGES if backbone.fmri is not None else ()
        sc = SC_STAGES if backbone.sc is not None else ()
        return fmri + sc + (FUSED_STAGES if fmri and sc else ())

    def forward(
        self,
        fmri: Tensor | None = None,
        sc: Tensor | None = None,
        fmri_mask: Tensor | None = None,
        *,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
        padding: Tensor | None = None,
        has_fmri: Tensor | None = None,
        has_sc: Tensor | None = None,
    ) -> dict[str, HiddenPrediction]:
        """Hide parts of the batch and predict them.

        Parameters
        ----------
        fmri, sc, fmri_mask, padding, has_fmri, has_sc
            See :meth:`BrainSymphony.forward`; `fmri_mask` is what the data
            themselves hide (constant regions), never judged.
        sc_hops, sc_positions
            Not used, as they know the hidden edges: made anew from the others.

        Returns
        -------
        dict of str to HiddenPrediction
            One entry per objective.
        """
        generator = self._generator(fmri if sc is None else sc)
        hidden, edges, sc_mask = {}, None, None
        if fmri is not None:
            hidden = self._hide_series(fmri, generator)
        if sc is not None:
            edges = choose_edges(len(sc), sc.shape[1], EDGE_RATIO, generator)
            sc_mask = hide_edges(*edges, sc.shape[1])
        mask = hidden.get("reconstruction")
        if mask is not None and fmri_mask is not None:
            mask = mask | fmri_mask
        out = self.backbone(
            fmri=fmri,
            sc=sc,
            fmri_mask=mask,
            sc_mask=sc_mask,
            padding=padding,
            has_fmri=has_fmri,
            has_sc=has_sc,
        )
        predictions: dict[str, HiddenPrediction] = {}
        if fmri is not None:
            seen = FMRIInput(fmri, mask, padding)
            inputs = FMRIInput(fmri, fmri_mask, padding)
            exists = _existing(fmri, fmri_mask, padding, has_fmri)
            predictions |= self._series(out, seen, inputs, fmri, hidden, exists, has_sc)
        if sc is not None and edges is not None:
            predictions |= self._edges(out, sc, edges, has_fmri, has_sc)
        return predictions

    def loss(
        self, predictions: dict[str, HiddenPrediction], target: dict[str, Tensor]
    ) -> Tensor:
        """Return the sum of the errors of the objectives that are trained now."""
        if self.training and self.stage is not None:
            predictions = {
                name: p for name, p in predictions.items() if name == self.stage
            }
        if not predictions:  # a batch without the modality of this stage
            # no parameter has a gradient, so that none moves by its momentum
            return next(self.parameters()).new_zeros((), requires_grad=True)
        return torch.stack([p.error() for p in predictions.values()]).sum()

    def _generator(self, like: Tensor | None) -> torch.Generator:
        """Return the source of masks: the fit's, or a fixed one for validation."""
        if self.training and self.generator is not None:
            return self.generator
        device = "cpu" if like is None else like.device
        return torch.Generator(device).manual_seed(VALIDATION_SEED)

    def _hide_series(
        self, fmri: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return what each objective hides, (B, T, R); the last is all of it."""
        n_scans, n_timepoints, n_regions = fmri.shape
        ratio, span = self.mask_ratio, self.span
        hidden = {
            "regions": mask_regions(n_scans, n_regions, ratio, generator)
            .unsqueeze(1)
            .expand_as(fmri),
            "time_points": mask_time_points(
                n_scans, n_timepoints, ratio, generator, span=span
            )
            .unsqueeze(2)
            .expand_as(fmri),
            "points": mask_points(
                n_scans, n_timepoints, n_regions, ratio, generator, span=span
            ),
        }
        hidden["reconstruction"] = (
            hidden["regions"] | hidden["time_points"] | hidden["points"]
        )
        return hidden

    def _series(
        self,
        out: BrainSymphonyOutput,
        seen: FMRIInput,
        inputs: FMRIInput,
        fmri: Tensor,
        hidden: dict[str, Tensor],
        exists: Tensor,
        has_sc: Tensor | None,
    ) -> dict[str, HiddenPrediction]:
        """Predict hidden series from `seen`; `exists` (B, T, R) is False at padding."""
        encoder = self.backbone.fmri
        assert encoder is not None  # as fmri was given
        profiles = encoder.spatial.features(inputs)  # (B, R, F)
        judged = {name: mask & exists for name, mask in hidden.items()}
        # (B, R, R): a correlation with a region that has no values is no value
        rows, columns = judged["regions"].any(1), exists.any(1)  # each (B, R)
        parts = {
            "series": judged["regions"].transpose(1, 2),  # (B, R, T)
            "connectivity": rows.unsqueeze(2) & columns.unsqueeze(1),
        }
        tokens = encoder.spatial.tokens
        judged["regions"] = (
            torch.cat(list(parts.values()), dim=2)
            if tokens == "both"
            else parts[tokens]
        )
        points = judged["points"].transpose(1, 2)  # (B, R, T)
        count = most_hidden(fmri.shape[1], self.mask_ratio, self.span)
        # Hidden points first; their number is known without waiting for a device.
        times = points.float().topk(count, dim=2).indices  # (B, R, count)
        at_points = fmri.new_zeros(points.shape).scatter(
            2, times, encoder.context.predict(seen, times).to(fmri)
        )
        made: dict[str, tuple[Any, Tensor]] = {
            "regions": (self.decoders["regions"](out.spatial), profiles),
            "time_points": (self.decoders["time_points"](out.temporal), fmri),
            "points": (at_points.transpose(1, 2), fmri),
            "reconstruction": (out.fmri_reconstruction, fmri),
        }
        if out.gate is not None:
            made["fused_reconstruction"] = (
                encoder.decode(out.fused, out),
                fmri,
            )
            both = judged["reconstruction"]
            judged["fused_reconstruction"] = (
                both if has_sc is None else both & has_sc[:, None, None]
            )
        return {
            name: HiddenPrediction(prediction, target, judged[name])
            for name, (prediction, target) in made.items()
        }

    def _edges(
        self,
        out: BrainSymphonyOutput,
        sc: Tensor,
        edges: tuple[Tensor, Tensor],
        has_fmri: Tensor | None,
        has_sc: Tensor | None,
    ) -> dict[str, HiddenPrediction]:
        """Predict hidden edges, each once, one scan after the other."""
        row, column = edges
        target = sc.flatten(1).gather(1, row * sc.shape[1] + column)
        stream = self.backbone.sc
        assert stream is not None  # as sc was given
        judged = torch.ones_like(target, dtype=torch.bool)
        if has_sc is not None:
            judged = judged & has_sc.unsqueeze(1)
        sources: dict[str, tuple[Any, Tensor]] = {"edges": (out.structural, judged)}
        if out.gate is not None:
            if has_fmri is not None:
                judged = judged & has_fmri.unsqueeze(1)
            sources["fused_edges"] = (out.fused, judged)
        return {
            name: HiddenPrediction(
                stream.edges.pairs(x, row, column).flatten(),
                target.flatten(),
                where.flatten(),
            )
            for name, (x, where) in sources.items()
        }


class SupervisedTask(PredictionTask):
    """Predict one target per scan from the streams of BrainSymphony."""

    @property
    def prepare_sc(self) -> Callable[[np.ndarray], dict[str, np.ndarray]] | None:
        """What to compute once per connectome; see `BrainSymphony.prepare_sc`."""
        return self.backbone.prepare_sc

    def forward(
        self,
        fmri: Tensor | None = None,
        sc: Tensor | None = None,
        fmri_mask: Tensor | None = None,
        *,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
        padding: Tensor | None = None,
        has_fmri: Tensor | None = None,
        has_sc: Tensor | None = None,
    ) -> Any:
        """Return the outputs (B, C); in training those of every read-out.

        Parameters
        ----------
        fmri, sc, fmri_mask, sc_hops, sc_positions, padding, has_fmri, has_sc
            See :meth:`BrainSymphony.forward`.

        Returns
        -------
        Tensor of shape (B, C)
            In training the pair of :meth:`TaskHead.each` instead.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out = self.backbone(
                fmri=fmri,
                sc=sc,
                fmri_mask=fmri_mask,
                sc_hops=sc_hops,
                sc_positions=sc_positions,
                padding=padding,
                has_fmri=has_fmri,
                has_sc=has_sc,
                only=self.head.needs,
                decode=False,
            )
        read = self.head.each if self.training else self.head
        return read(out, padding, has_fmri, has_sc)

    def loss(self, prediction: Any, target: dict[str, Tensor]) -> Tensor:
        """Return the mean loss, weighted by ``target["weight"]`` if it is there.

        In training that of every read-out, averaged; else that of their average.
        """
        if not self.training:
            return target_loss(self.kind, prediction, target)
        outputs, say = prediction  # (B, K, C), (B, K)
        n_readouts = outputs.shape[1]
        weight = say * n_readouts  # of mean one in each scan
        if "weight" in target:
            weight = weight * target["weight"].unsqueeze(1)
        repeated = target["target"].repeat_interleave(n_readouts)
        return target_loss(
            self.kind,
            outputs.flatten(0, 1),
            {"target": repeated, "weight": weight.flatten()},
        )


def _existing(
    fmri: Tensor,
    fmri_mask: Tensor | None,
    padding: Tensor | None,
    has_fmri: Tensor | None,
) -> Tensor:
    """Return where a true value exists, (B, T, R)."""
    exists = torch.ones_like(fmri, dtype=torch.bool)
    if padding is not None:
        exists = exists & ~padding.unsqueeze(2)
    if fmri_mask is not None:
        exists = exists & ~fmri_mask
    if has_fmri is not None:
        exists = exists & has_fmri[:, None, None]
    return exists
