"""From a validated cohort to batches of windows.

Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bsym_sklearn.data.resampling import window_starts
from bsym_sklearn.training.reading import ScanReader

Window = tuple[int, int]  # scan, first time point
Batch = dict[str, Tensor]


class Share(NamedTuple):
    """What one process reads of a batch.

    Parameters
    ----------
    windows : list of (scan, first time point)
        The whole batch.
    own : slice
        Of these windows.
    """

    windows: list[Window]
    own: slice


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

    def __getitems__(self, share: Share) -> tuple[Batch, Batch]:
        """Return a share of a batch; torch's loader asks for all of it at once."""
        return self.batch(share.windows, share.own)

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

    def batch(
        self, windows: Sequence[Window], own: slice = slice(None)
    ) -> tuple[Batch, Batch]:
        """Return windows as the keyword arguments of the model, and their targets.

        Parameters
        ----------
        windows : sequence of (scan, first time point)
            What the batch is made of.
        own : slice, default=slice(None)
            Those to return. A modality that any scan of the batch has is there, so
            that the model draws the same for a scan wherever it is computed.

        Returns
        -------
        inputs : dict of str to Tensor
            ``fmri`` (B, T, R), ``sc`` (B, R, R) and what the reader prepares from it,
            zeros where a scan lacks one; ``padding`` (B, T), ``fmri_mask`` (B, T, R),
            ``has_fmri`` and ``has_sc`` (B,), only where they say something.
        targets : dict of str to Tensor
            ``row``, ``target`` and ``weight`` (B, ...), if there are any.
        """
        part = windows[own]
        inputs: Batch = {}
        if part:
            inputs = self._series(part, windows) | self._connectomes(part, windows)
        rows = torch.tensor([row for row, _ in part], dtype=torch.int64)
        target = {"row": rows}
        if self.targets is not None:
            target["target"] = self.targets[rows]
        if self.weights is not None:
            target["weight"] = self.weights[rows]
        return inputs, target

    def _series(self, windows: Sequence[Window], whole: Sequence[Window]) -> Batch:
        """Return series of a batch, and what is padding or constant in them."""
        if not any(self.reader.has("fmri", row) for row, _ in whole):
            return {}
        n_scans, n_regions = len(windows), self.reader.cohort.n_regions
        present = np.array([self.reader.has("fmri", row) for row, _ in windows])
        fmri = np.zeros((n_scans, self.window, n_regions), self.reader.dtype)
        constant = np.zeros((n_scans, n_regions), dtype=bool)
        # a scan without fmri is not padding: it would have no time point at all
        lengths = np.full(n_scans, self.window)
        masked = self.reader.cohort.constant_regions == "mask"
        for i, (row, start) in enumerate(windows):
            part = self.reader.window(row, start, self.window)
            if part is not None:
                lengths[i] = len(part)
                fmri[i, : len(part)] = part
                if masked:
                    constant[i] = self.reader.constant_regions(row)
        batch = {"fmri": torch.from_numpy(fmri)} | _flags("fmri", present)
        if (lengths < self.window).any():
            padding = np.arange(self.window) >= lengths[:, None]
            batch["padding"] = torch.from_numpy(padding)
        if constant.any():
            mask = torch.from_numpy(constant).unsqueeze(1)
            batch["fmri_mask"] = mask.expand_as(batch["fmri"])
        return batch

    def _connectomes(self, windows: Sequence[Window], whole: Sequence[Window]) -> Batch:
        """Return connectomes of a batch and what was prepared from them."""
        scans = [self.reader.connectome(row) for row, _ in windows]
        others = (self.reader.connectome(row) for row, _ in whole)  # read if needed
        candidates = (scan for scan in chain(scans, others) if scan is not None)
        example = next(candidates, None)
        if example is None:
            return {}
        absent = {name: np.zeros_like(array) for name, array in example.items()}
        full = [absent if scan is None else scan for scan in scans]
        batch = {
            name: torch.from_numpy(np.stack([scan[name] for scan in full]))
            for name in example
        }
        return batch | _flags("sc", np.array([scan is not None for scan in scans]))


def _flags(modality: str, present: np.ndarray) -> Batch:
    """Say which scans of a batch have a modality, unless all do."""
    return {} if present.all() else {f"has_{modality}": torch.from_numpy(present)}


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
        # float32 times int64 is float64: exact, and so below n_starts
        starts = (place * n_starts[rows[order]]).astype(int)
        yield from zip(rows[order].tolist(), starts.tolist(), strict=True)


class Batches(Sampler):
    """Batches of windows, of which a process may read a share, from any batch on.

    Parameters
    ----------
    windows : Sampler or sequence of (scan, first time point)
        What to read, in order.
    batch_size : int
        Windows per batch; the last may have fewer.
    own : callable or None, default=None
        From the windows in a batch to the slice that this process reads. None reads
        all.

    Attributes
    ----------
    first : int
        Batch to begin with, 0 unless it is set: to go on in the middle of an epoch.

    Examples
    --------
    >>> batches = Batches([(0, 0), (1, 0), (2, 0)], 2, lambda n: slice(0, 1))
    >>> [share.windows[share.own] for share in batches], batches.sizes()
    ([[(0, 0)], [(2, 0)]], [2, 1])
    """

    def __init__(
        self,
        windows: Any,
        batch_size: int,
        own: Callable[[int], slice] | None = None,
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.own = own
        self.first = 0

    def sizes(self) -> list[int]:
        """Return the windows of each batch to come, of all processes together."""
        starts = range(0, len(self.windows), self.batch_size)[self.first :]
        return [min(self.batch_size, len(self.windows) - start) for start in starts]

    def __len__(self) -> int:
        return len(self.sizes())

    def __iter__(self) -> Iterator[Share]:
        windows = islice(self.windows, self.first * self.batch_size, None)
        while batch := list(islice(windows, self.batch_size)):
            own = slice(None) if self.own is None else self.own(len(batch))
            yield Share(batch, own)


def make_loader(
    dataset: WindowDataset,
    windows: Any,
    batch_size: int,
    *,
    device: str,
    n_jobs: int,
    own: Callable[[int], slice] | None = None,
    persistent: bool = False,
) -> DataLoader:
    """Return a loader of batches of windows.

    Parameters
    ----------
    dataset : WindowDataset
        Scans.
    windows : Sampler or list of (scan, first time point)
        What to read, in order.
    batch_size : int
        Windows per batch.
    device : str
        Where the batches will go; for CUDA they lie in pinned memory.
    n_jobs : int
        Processes that read scans beside the main one.
    own : callable or None, default=None
        See :class:`Batches`.
    persistent : bool, default=False
        Keep these processes, and what they keep, from one epoch to the next.

    Returns
    -------
    DataLoader
    """
    return DataLoader(
        dataset,
        batch_sampler=Batches(windows, batch_size, own),
        collate_fn=_as_it_is,
        num_workers=n_jobs,
        persistent_workers=persistent and n_jobs > 0,
        pin_memory=is_cuda(device),
        # Seeds reading processes, once or at every epoch: it must be neither
        # torch's global generator nor one that something else is drawn from.
        generator=torch.Generator(),
    )


def to_device(batch: Batch, device: str) -> Batch:
    """Return a batch on a device, without waiting for copies from pinned memory.

    Parameters
    ----------
    batch : dict of str to Tensor
        From a loader of :func:`make_loader` for the same device.
    device : str
        Torch device.

    Returns
    -------
    dict of str to Tensor

    Examples
    --------
    >>> to_device({"row": torch.tensor([3])}, "cpu")
    {'row': tensor([3])}
    """
    # elsewhere, or not pinned, a copy that nobody waits for may come too late
    pinned = is_cuda(device)
    return {name: x.to(device, non_blocking=pinned) for name, x in batch.items()}


def is_cuda(device: str) -> bool:
    """Say if a device is a CUDA device.

    Examples
    --------
    >>> is_cuda("cuda:1"), is_cuda("cpu")
    (True, False)
    """
    return torch.device(device).type == "cuda"


def _as_it_is(batch: Any) -> Any:
    """Return what the dataset has put together already."""
    return batch


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
