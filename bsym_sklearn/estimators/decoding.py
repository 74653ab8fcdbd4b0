"""What a trained model's decoders say about scans, seen whole or in part.

Shape letters: B windows, T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.training.inference import Batch, WindowLoop
from bsym_sklearn.training.masking import mask_edges, mask_regions
from bsym_sklearn.training.objectives import EDGE_RATIO
from bsym_sklearn.training.scans import Window, WindowDataset

Masks = Sequence[np.ndarray | None]
SCORE_SEED = 20250623  # masks of `held_out_r2`: the same for every call


class Decoder:
    """Decode the scans of a dataset.

    Parameters
    ----------
    module : nn.Module
        Set to evaluation while decoding; holds the backbone.
    backbone : BrainSymphony
        Model.
    dataset : WindowDataset
        Scans.
    loop : WindowLoop
        How to go through their windows.
    """

    def __init__(
        self,
        module: nn.Module,
        backbone: BrainSymphony,
        dataset: WindowDataset,
        loop: WindowLoop,
    ) -> None:
        self.module = module
        self.backbone = backbone
        self.dataset = dataset
        self.loop = loop

    def shapes(self, modality: str) -> list[tuple[int, int]]:
        """Return the shape of each scan, (T_i, R) or (R, R)."""
        n = self.backbone.n_regions
        if modality == "sc":
            return [(n, n)] * len(self.dataset.reader)
        return [(int(length), n) for length in self.dataset.reader.lengths]

    def fmri(self, masks: Masks | None = None) -> list[np.ndarray | None]:
        """Return the decoded series (T_i, R) of each scan; None without fMRI."""
        shapes = self.shapes("fmri")
        total = [np.zeros(shape) for shape in shapes]
        count = [np.zeros((shape[0], 1)) for shape in shapes]

        def decode(batch: Batch, windows: list[Window]) -> Tensor | None:
            if "fmri" not in batch:
                return None
            hidden = batch.get("fmri_mask")
            if masks is not None:
                given = self._window_masks(masks, windows).to(batch["fmri"].device)
                hidden = given if hidden is None else given | hidden
            out = self.backbone(
                fmri=batch["fmri"], fmri_mask=hidden, padding=batch.get("padding")
            )
            return out.fmri_reconstruction

        for windows, decoded in self.loop.iterate(self.module, self.dataset, decode):
            if decoded is None:
                continue
            for (row, start), values in zip(
                windows, decoded.cpu().numpy(), strict=True
            ):
                n = min(len(values), shapes[row][0] - start)
                total[row][start : start + n] += values[:n]
                count[row][start : start + n] += 1
        return [
            # NaN where no window was
            None
            if cell is None
            else np.where(times, whole / np.maximum(times, 1), np.nan)
            for cell, whole, times in zip(
                self.dataset.reader.cohort.fmri, total, count, strict=True
            )
        ]

    def sc(self, masks: Masks | None = None) -> list[np.ndarray | None]:
        """Return the decoded connectome (R, R) of each scan; None without."""
        stream = self.backbone.sc
        assert stream is not None  # callers ask only for modalities of the model
        decoded: list[np.ndarray | None] = []
        device = self.loop.device
        self.module.eval()
        # A scan's windows share its connectome: one pass per scan is enough.
        with torch.inference_mode():
            for i in range(len(self.dataset.reader)):
                values = self.dataset.reader.sc(i)
                if values is None:
                    decoded.append(None)
                    continue
                mask = None if masks is None else masks[i]
                hidden = None
                if mask is not None:
                    hidden = torch.from_numpy(mask).unsqueeze(0).to(device)
                sc = torch.from_numpy(values).unsqueeze(0).to(device)
                decoded.append(stream.edges(stream(sc, hidden))[0].cpu().numpy())
        return decoded

    def held_out_r2(self, modality: str, mask_ratio: float) -> float:
        """Return R2 of hidden regions, or edges, pooled over the scans.

        The same share of each scan is hidden as in training, at places that are
        the same for every call.

        Parameters
        ----------
        modality : {"fmri", "sc"}
            What to hide: whole regions of the series, or edges.
        mask_ratio : float
            Share of the regions to hide, in (0, 1).

        Returns
        -------
        float
            1 is perfect, 0 is as good as the mean. NaN if nothing could be hidden.
        """
        generator = torch.Generator().manual_seed(SCORE_SEED)
        n = self.backbone.n_regions
        masks: list[np.ndarray] = []
        for shape in self.shapes(modality):
            if modality == "sc":
                masks.append(mask_edges(1, n, EDGE_RATIO, generator)[0].numpy())
            else:
                regions = mask_regions(1, n, mask_ratio, generator)[0].numpy()
                masks.append(np.broadcast_to(regions, shape).copy())
        reader = self.dataset.reader
        decoded = self.sc(masks) if modality == "sc" else self.fmri(masks)
        read = reader.sc if modality == "sc" else reader.fmri
        truth: list[np.ndarray] = []
        error = 0.0
        for i, (values, mask) in enumerate(zip(decoded, masks, strict=True)):
            if values is not None:
                scan: Any = read(i)
                shown = mask & np.isfinite(values)  # windows may not cover a scan
                true = scan[shown].astype(np.float64)
                error += float(((true - values[shown]) ** 2).sum())
                truth.append(true)
        pooled = np.concatenate(truth) if truth else np.zeros(0)
        spread = float(((pooled - pooled.mean()) ** 2).sum()) if len(pooled) else 0.0
        return 1 - error / spread if spread else float("nan")

    def _window_masks(self, masks: Masks, windows: list[Window]) -> Tensor:
        """Cut the masks of scans into those of windows, (B, T, R)."""
        size = (len(windows), self.dataset.window, self.backbone.n_regions)
        hidden = np.zeros(size, dtype=bool)
        for i, (row, start) in enumerate(windows):
            mask = masks[row]
            if mask is not None:
                part = mask[start : start + self.dataset.window]
                hidden[i, : len(part)] = part
        return torch.from_numpy(hidden)


def check_masks(
    masks: Sequence[Any] | None, shapes: list[tuple[int, int]]
) -> list[np.ndarray | None] | None:
    """Return boolean masks of the shapes of the scans, or raise ValueError.

    Parameters
    ----------
    masks : sequence of bool array-like or None
        One per scan, None hides nothing.
    shapes : list of tuple of int
        Of the scans.

    Returns
    -------
    list of ndarray or None

    Examples
    --------
    >>> check_masks([[[True]]], [(1, 1)])
    [array([[ True]])]
    """
    if masks is None:
        return None
    if len(masks) != len(shapes):
        raise ValueError(
            f"`mask` needs one entry per scan. Got {len(masks)} for {len(shapes)}."
        )
    checked: list[np.ndarray | None] = []
    for i, (mask, shape) in enumerate(zip(masks, shapes, strict=True)):
        array = None if mask is None else np.asarray(mask)
        if array is not None and (array.shape != shape or array.dtype != bool):
            raise ValueError(
                f"`mask` needs bool arrays of the shape of the scans, {shape}. Got "
                f"{array.dtype} of shape {array.shape}, first in scan {i}."
            )
        checked.append(array)
    return checked
