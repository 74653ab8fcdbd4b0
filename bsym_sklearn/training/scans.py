"""From a validated cohort to batches of windows.

Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from bsym_sklearn.data.checks import find_constant_regions
from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.data.resampling import crop, pad, resample, window_starts
from bsym_sklearn.data.scaling import ConnectomeScaler, RegionScaler

Window = tuple[int, int]  # scan, first time point
CACHE_BYTES = 1 << 30  # scaled scans kept per process


@dataclass
class ScanReader:
    """Read scans of a cohort as the model wants them: resampled and scaled.

    Parameters
    ----------
    cohort : Cohort
        Validated scans.
    fmri_scaler : RegionScaler or None
        Fitted on the training rows.
    sc_scaler : ConnectomeScaler or None
        Fitted on the training rows.
    modalities : tuple of {"fmri", "sc"}
        Those that the model reads.
    t_r : ndarray of shape (n_scans,) or None
        Repetition time of each scan, in seconds.
    model_t_r : float or None
        Repetition time to resample to, in seconds.
    dtype : numpy dtype, default=float32
        Of what is read.
    """

    cohort: Cohort
    fmri_scaler: RegionScaler | None
    sc_scaler: ConnectomeScaler | None
    modalities: tuple[str, ...]
    t_r: np.ndarray | None = None
    model_t_r: float | None = None
    dtype: Any = np.float32
    _cache: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)
    _cached: int = 0

    def __len__(self) -> int:
        return len(self.cohort)

    @property
    def lengths(self) -> np.ndarray:
        """Time points of each scan as the model sees them; 0 without fMRI."""
        lengths = np.asarray(self.cohort.n_timepoints)
        if "fmri" not in self.modalities:
            return np.zeros_like(lengths)
        if self.t_r is None or self.model_t_r is None:
            return lengths
        return np.rint(lengths * self.t_r / self.model_t_r).astype(int)

    def fmri(self, i: int) -> np.ndarray | None:
        """Return the scaled series (T, R) of scan `i`, or None."""
        if "fmri" not in self.modalities or self.cohort.fmri[i] is None:
            return None
        return self._read("fmri", i)

    def sc(self, i: int) -> np.ndarray | None:
        """Return the scaled connectome (R, R) of scan `i`, or None."""
        if "sc" not in self.modalities or self.cohort.sc[i] is None:
            return None
        return self._read("sc", i)

    def _read(self, modality: str, i: int) -> np.ndarray:
        """Read, scale and keep, as long as there is room."""
        key = (modality, i)
        if key in self._cache:
            return self._cache[key]
        # Scaled in float64: a mean over 1200 float32 values is not exact.
        if modality == "fmri":
            x = self.cohort.read_fmri(i, dtype=np.float64)
            if self.t_r is not None and self.model_t_r not in (None, self.t_r[i]):
                x = resample(x, self.t_r[i], self.model_t_r)
            scaler: RegionScaler | ConnectomeScaler | None = self.fmri_scaler
        else:
            x = self.cohort.read_sc(i, dtype=np.float64)
            scaler = self.sc_scaler
        if scaler is not None:
            x = scaler.scale(x)
        x = np.ascontiguousarray(x, dtype=self.dtype)
        if self._cached + x.nbytes <= CACHE_BYTES:
            self._cache[key] = x
            self._cached += x.nbytes
        return x

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_cached": 0}


class WindowDataset(Dataset):
    """Windows of scans with their targets.

    Parameters
    ----------
    reader : ScanReader
        Source of the scans.
    window : int
        Time points T of a window; shorter scans are padded at the end.
    rows : sequence of int or None, default=None
        Scans to use, all if not given.
    targets : Tensor of shape (n_scans, ...) or None, default=None
        One per scan of the reader.
    weights : Tensor of shape (n_scans,) or None, default=None
        One per scan of the reader.
    n_windows : int or None, default=None
        Evenly spaced windows per scan outside of training; the fewest that
        cover the scan if not given.
    """

    def __init__(
        self,
        reader: ScanReader,
        window: int,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        n_windows: int | None = None,
    ) -> None:
        self.reader = reader
        self.window = window
        self.rows = np.arange(len(reader)) if rows is None else np.asarray(rows)
        self.targets = targets
        self.weights = weights
        self.n_windows = n_windows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, window: Window) -> dict[str, Any]:
        """Return one window: arrays, what is padding or hidden, and the target."""
        row, start = window
        item: dict[str, Any] = {"row": row}
        fmri = self.reader.fmri(row)
        if fmri is not None:
            part = crop(fmri, start, self.window)
            item["fmri"], item["padding"] = pad(part, self.window)
            if self.reader.cohort.constant_regions == "mask":
                item["constant"] = find_constant_regions(fmri)
        sc = self.reader.sc(row)
        if sc is not None:
            item["sc"] = sc
        return item

    def covering_windows(self) -> list[Window]:
        """Return evenly spaced windows of every scan, in the order of the rows."""
        lengths = self.reader.lengths
        return [
            (int(row), int(start))
            for row in self.rows
            for start in window_starts(
                max(int(lengths[row]), 1), self.window, n_windows=self.n_windows
            )
        ]

    def collate(self, items: list[dict[str, Any]]) -> tuple[dict, dict]:
        """Stack windows into the keyword arguments of the model, and targets."""
        batch = _stack_modality(items, "fmri") | _stack_modality(items, "sc")
        padding = _stack(items, "padding")  # (B, T)
        if padding is not None and padding.any():
            batch["padding"] = padding
        constant = _stack(items, "constant")  # (B, R)
        if constant is not None and constant.any():
            batch["fmri_mask"] = constant.unsqueeze(1).expand_as(batch["fmri"])
        rows = torch.tensor([item["row"] for item in items])
        target = {"row": rows}
        if self.targets is not None:
            target["target"] = self.targets[rows]
        if self.weights is not None:
            target["weight"] = self.weights[rows]
        return batch, target


def _stack_modality(items: list[dict[str, Any]], name: str) -> dict[str, Tensor]:
    """Return the tensor of a modality and, if some lack it, which have it."""
    stacked = _stack(items, name)
    if stacked is None:
        return {}
    batch = {name: stacked}
    has = [name in item for item in items]
    if not all(has):
        batch[f"has_{name}"] = torch.tensor(has)
    return batch


class RandomWindows(Sampler):
    """Every scan once per epoch, in random order, at a random place.

    All randomness of reading is drawn here, in the main process, so that the
    number of reading processes changes nothing.

    Parameters
    ----------
    dataset : WindowDataset
        Scans to draw from.
    generator : torch.Generator
        Advances with every epoch.
    """

    def __init__(self, dataset: WindowDataset, generator: torch.Generator) -> None:
        self.dataset = dataset
        self.generator = generator

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Window]:
        rows = self.dataset.rows
        order = torch.randperm(len(rows), generator=self.generator).numpy()
        place = torch.rand(
            len(rows), dtype=torch.float32, generator=self.generator
        ).numpy()
        n_starts = np.maximum(self.dataset.reader.lengths - self.dataset.window, 0) + 1
        for row, where in zip(rows[order], place, strict=True):
            # float32 times int64 is float64: exact, and so below n_starts
            yield int(row), int(where * n_starts[row])


def _stack(items: list[dict[str, Any]], name: str) -> Tensor | None:
    """Stack one entry of the items, zeros where it lacks; None if it always does."""
    arrays = [item.get(name) for item in items]
    present = next((array for array in arrays if array is not None), None)
    if present is None:
        return None
    filling = np.zeros_like(present)
    return torch.from_numpy(np.stack([filling if a is None else a for a in arrays]))


def split_rows(
    groups: Sequence[Any] | np.ndarray,
    fraction: float,
    generator: torch.Generator,
    *,
    strata: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split scans into training and validation, groups undivided.

    Parameters
    ----------
    groups : array-like of shape (n_scans,)
        Participant of each scan.
    fraction : float
        Share of the groups to hold out, in [0, 1). At least one is held out if
        it is above 0, but never the last group in training.
    generator : torch.Generator
        Source of randomness.
    strata : ndarray of shape (n_scans,) or None, default=None
        Class codes, from 0. Groups are dealt out class by class (by a group's
        first scan), so that the classes keep their shares. A group that is the
        last in training with a scan of some class stays there.

    Returns
    -------
    train, valid : ndarray of int
        Sorted rows.

    Examples
    --------
    >>> import torch
    >>> split_rows(list("aabbccdd"), 0.25, torch.Generator().manual_seed(0))
    (array([2, 3, 4, 5, 6, 7]), array([0, 1]))
    """
    _, first, codes = np.unique(
        np.asarray(groups, dtype=object).astype(str),
        return_index=True,
        return_inverse=True,
    )
    n_groups = len(first)
    n_valid = max(round(fraction * n_groups), 1) if fraction else 0
    order = torch.randperm(n_groups, generator=generator).numpy()
    classes = np.zeros(len(codes), dtype=int) if strata is None else strata
    stratum = classes[first]
    # Position of each group among those of its class, as a share of the class:
    # the groups with the lowest shares are a stratified sample.
    share = np.empty(n_groups)
    for value in np.unique(stratum):
        members = order[stratum[order] == value]
        share[members] = (np.arange(len(members)) + 0.5) / len(members)
    contains = np.zeros((n_groups, int(classes.max()) + 1), dtype=int)
    contains[codes, classes] = 1
    n_left = contains.sum(axis=0)  # training groups of each class
    held_out: list[int] = []
    for group in order[np.argsort(share[order], kind="stable")]:
        spared = (n_left[contains[group] > 0] > 1).all()
        if len(held_out) < n_valid and spared:
            held_out.append(group)
            n_left -= contains[group]
    is_valid = np.isin(codes, held_out)
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)
