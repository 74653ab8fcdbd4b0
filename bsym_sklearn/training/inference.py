"""Apply a trained module to all windows of all scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bsym_sklearn.training import forks  # noqa: F401  (a forked child can compute)
from bsym_sklearn.training.scans import (
    Batch,
    Window,
    WindowDataset,
    make_loader,
    to_device,
)

# Outputs that wait on the device until they are brought over together. Sums of all
# scans do not fit there in general (40,000 scans of 450 regions and 128 channels are
# 18 GB in float64); this much is some hundred windows of that size.
WAITING_BYTES = 1 << 26


@dataclass(frozen=True)
class WindowLoop:
    """How to go through windows.

    Parameters
    ----------
    batch_size : int
        Windows per batch.
    device : str
        Torch device.
    n_jobs : int, default=0
        Processes that read scans beside the main one.
    """

    batch_size: int
    device: str
    n_jobs: int = 0

    def iterate(
        self,
        module: nn.Module,
        dataset: WindowDataset,
        apply: Callable[[Batch, list[Window]], Any],
    ) -> Iterator[tuple[list[Window], Any]]:
        """Yield what `apply` makes of each batch of covering windows.

        Parameters
        ----------
        module : nn.Module
            Set to evaluation first.
        dataset : WindowDataset
            Scans.
        apply : callable
            From the keyword arguments of the model, on the device, and the
            (scan, first time point) of each window, to anything.

        Yields
        ------
        windows : list of (scan, first time point)
            What the batch is made of.
        output : Any
            Result of `apply`.
        """
        windows = dataset.covering_windows()
        loader = make_loader(
            dataset, windows, self.batch_size, device=self.device, n_jobs=self.n_jobs
        )
        module.eval()
        with torch.inference_mode():
            for i, (batch, _) in enumerate(loader):
                chunk = windows[i * self.batch_size : (i + 1) * self.batch_size]
                yield chunk, apply(to_device(batch, self.device), chunk)

    def average(
        self,
        module: nn.Module,
        dataset: WindowDataset,
        apply: Callable[[Batch], Tensor],
    ) -> np.ndarray:
        """Average what `apply` makes of the windows of each scan.

        Parameters
        ----------
        module, dataset
            See :meth:`iterate`.
        apply : callable
            From the keyword arguments of the model to a tensor (B, ...).

        Returns
        -------
        ndarray of shape (n_scans, ...)
            float64, in the order of the dataset's rows.
        """
        place = {int(row): i for i, row in enumerate(dataset.rows)}
        total: np.ndarray | None = None
        count = np.zeros(len(place))
        for windows, output in self._gathered(module, dataset, apply):
            values = output.double()
            if total is None:
                total = np.zeros((len(place), *values.shape[1:]))
            places = [place[row] for row, _ in windows]
            torch.from_numpy(total).index_add_(0, torch.tensor(places), values)
            count += np.bincount(places, minlength=len(place))
        if total is None:
            raise ValueError("A prediction needs at least one scan. Got none.")
        return total / count.reshape(-1, *[1] * (total.ndim - 1))

    def _gathered(
        self,
        module: nn.Module,
        dataset: WindowDataset,
        apply: Callable[[Batch], Tensor],
    ) -> Iterator[tuple[list[Window], Tensor]]:
        """Yield windows and outputs in the main memory, many batches at once."""
        windows: list[Window] = []
        waiting: list[Tensor] = []
        size = 0
        for chunk, output in self.iterate(module, dataset, lambda b, _: apply(b)):
            windows += chunk
            waiting.append(output)
            size += output.nbytes
            if size >= WAITING_BYTES:
                yield windows, torch.cat(waiting).cpu()
                windows, waiting, size = [], [], 0
        if waiting:
            yield windows, torch.cat(waiting).cpu()
