"""Apply a trained module to all windows of all scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bsym_sklearn.training.scans import Window, WindowDataset

Batch = dict[str, Tensor]


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
        loader = DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=windows,  # type: ignore[arg-type]
            collate_fn=dataset.collate,
            num_workers=self.n_jobs,
            generator=torch.Generator(),  # torch's global one stays untouched
        )
        module.eval()
        with torch.inference_mode():
            for i, (batch, _) in enumerate(loader):
                on_device = {name: x.to(self.device) for name, x in batch.items()}
                chunk = windows[i * self.batch_size : (i + 1) * self.batch_size]
                yield chunk, apply(on_device, chunk)

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
        for windows, output in self.iterate(module, dataset, lambda b, _: apply(b)):
            values = output.double().cpu().numpy()
            if total is None:
                total = np.zeros((len(place), *values.shape[1:]))
            for (row, _), value in zip(windows, values, strict=True):
                total[place[row]] += value
                count[place[row]] += 1
        if total is None:
            raise ValueError("A prediction needs at least one scan. Got none.")
        return total / count.reshape(-1, *[1] * (total.ndim - 1))
