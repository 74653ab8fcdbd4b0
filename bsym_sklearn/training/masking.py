"""Random masks as pure functions of a shape, a ratio and a generator.

True is hidden. Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mask_regions(
    n_scans: int, n_regions: int, ratio: float, generator: torch.Generator
) -> Tensor:
    """Hide a share of the regions of each scan.

    Parameters
    ----------
    n_scans, n_regions : int
        Scans B and regions R.
    ratio : float
        Share to hide, in [0, 1). At least one region is hidden where there are
        two or more and `ratio` is above 0; at least one stays visible.
    generator : torch.Generator
        Source of randomness; the mask is made on its device.

    Returns
    -------
    bool Tensor of shape (B, R)

    Examples
    --------
    >>> import torch
    >>> mask_regions(2, 10, 0.3, torch.Generator().manual_seed(0)).sum(1)
    tensor([3, 3])
    """
    return _choose(n_scans, n_regions, ratio, generator)


def mask_time_points(
    n_scans: int,
    n_timepoints: int,
    ratio: float,
    generator: torch.Generator,
    *,
    span: int = 1,
) -> Tensor:
    """Hide a share of the time points of each scan, all regions at once.

    Parameters
    ----------
    n_scans, n_timepoints : int
        Scans B and time points T.
    ratio : float
        Share to hide, in [0, 1).
    generator : torch.Generator
        Source of randomness; the mask is made on its device.
    span : int, default=1
        Length of the hidden runs, in time points, at most the share to hide,
        which is rounded to whole runs. Single points are easily interpolated in
        a slow signal; runs are not. Runs may touch, and the ends of the window
        may cut one.

    Returns
    -------
    bool Tensor of shape (B, T)

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(2)
    >>> mask_time_points(1, 12, 0.25, generator, span=3).int()
    tensor([[0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    return _spans(n_scans, n_timepoints, ratio, generator, span)


def mask_points(
    n_scans: int,
    n_timepoints: int,
    n_regions: int,
    ratio: float,
    generator: torch.Generator,
    *,
    span: int = 1,
) -> Tensor:
    """Hide a share of the time points of each region on its own.

    Parameters
    ----------
    n_scans, n_timepoints, n_regions : int
        Scans B, time points T and regions R.
    ratio : float
        Share to hide, in [0, 1).
    generator : torch.Generator
        Source of randomness; the mask is made on its device.
    span : int, default=1
        Length of the hidden runs, see :func:`mask_time_points`.

    Returns
    -------
    bool Tensor of shape (B, T, R)

    Examples
    --------
    >>> import torch
    >>> mask = mask_points(2, 20, 3, 0.25, torch.Generator().manual_seed(0))
    >>> mask.shape, mask.sum(1)[0]
    (torch.Size([2, 20, 3]), tensor([5, 5, 5]))
    """
    rows = _spans(n_scans * n_regions, n_timepoints, ratio, generator, span)
    return rows.unflatten(0, (n_scans, n_regions)).transpose(1, 2)


def most_hidden(n_timepoints: int, ratio: float, span: int = 1) -> int:
    """Return how many points of a row :func:`mask_points` hides at most.

    Parameters
    ----------
    n_timepoints, ratio, span
        See :func:`mask_points`.

    Examples
    --------
    >>> most_hidden(20, 0.25)
    5
    """
    span = min(span, _count(n_timepoints, ratio))
    if span <= 1:
        return _count(n_timepoints, ratio)
    return min(_count(-(-n_timepoints // span), ratio) * span, n_timepoints)


def choose_edges(
    n_scans: int, n_regions: int, ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose a share of the undirected edges of each connectome.

    Their number is known without looking at them, so that a device need not be
    waited for.

    Parameters
    ----------
    n_scans, n_regions : int
        Scans B and regions R.
    ratio : float
        Share of the R (R - 1) / 2 edges to choose, in [0, 1).
    generator : torch.Generator
        Source of randomness; the edges are chosen on its device.

    Returns
    -------
    row, column : int64 Tensor of shape (B, E)
        Regions of each edge, ``row < column``, sorted.

    Examples
    --------
    >>> import torch
    >>> choose_edges(1, 5, 0.2, torch.Generator().manual_seed(0))
    (tensor([[0, 0]]), tensor([[3, 4]]))
    """
    pairs = torch.triu_indices(n_regions, n_regions, 1, device=generator.device)
    chosen = _order(n_scans, pairs.shape[1], ratio, generator).sort(dim=1).values
    row, column = pairs[:, chosen].unbind(0)
    return row, column


def hide_edges(row: Tensor, column: Tensor, n_regions: int) -> Tensor:
    """Return the mask that hides chosen edges, in both directions.

    Parameters
    ----------
    row, column : int64 Tensor of shape (B, E)
        Regions of each edge, see :func:`choose_edges`.
    n_regions : int
        Regions R.

    Returns
    -------
    bool Tensor of shape (B, R, R)

    Examples
    --------
    >>> import torch
    >>> hide_edges(torch.tensor([[0]]), torch.tensor([[1]]), 2).int()
    tensor([[[0, 1],
             [1, 0]]], dtype=torch.int32)
    """
    mask = torch.zeros(len(row), n_regions**2, dtype=torch.bool, device=row.device)
    mask.scatter_(1, row * n_regions + column, True)
    mask.scatter_(1, column * n_regions + row, True)
    return mask.unflatten(1, (n_regions, n_regions))


def mask_edges(
    n_scans: int, n_regions: int, ratio: float, generator: torch.Generator
) -> Tensor:
    """Hide a share of the undirected edges of each connectome.

    Parameters
    ----------
    n_scans, n_regions : int
        Scans B and regions R.
    ratio : float
        Share of the R (R - 1) / 2 edges to hide, in [0, 1).
    generator : torch.Generator
        Source of randomness; the mask is made on its device.

    Returns
    -------
    bool Tensor of shape (B, R, R)
        Symmetric, False on the diagonal.

    Examples
    --------
    >>> import torch
    >>> mask = mask_edges(1, 5, 0.2, torch.Generator().manual_seed(0))
    >>> torch.equal(mask, mask.transpose(1, 2)), int(mask.sum())
    (True, 4)
    """
    return hide_edges(*choose_edges(n_scans, n_regions, ratio, generator), n_regions)


def _choose(n_rows: int, n: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Return a mask (n_rows, n) with the same number of True in each row."""
    mask = torch.zeros(n_rows, n, dtype=torch.bool, device=generator.device)
    return mask.scatter_(1, _order(n_rows, n, ratio, generator), True)


def _order(n_rows: int, n: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Return which of `n` are hidden in each row, (n_rows, count), in random order."""
    noise = torch.rand(
        n_rows, n, dtype=torch.float32, generator=generator, device=generator.device
    )
    return noise.argsort(dim=1)[:, : _count(n, ratio)]


def _spans(
    n_rows: int, n: int, ratio: float, generator: torch.Generator, span: int
) -> Tensor:
    """Return a mask (n_rows, n) of runs of `span` that start on a random grid."""
    # A longer run would hide more than asked for, or leave no place for a second.
    span = min(span, _count(n, ratio))
    if span <= 1:
        return _choose(n_rows, n, ratio, generator)
    # Runs on a grid do not overlap, so their number is exact; a random offset per
    # row keeps every time point equally likely to be hidden.
    n_slots = -(-n // span)
    slots = _choose(n_rows, n_slots, ratio, generator).repeat_interleave(span, dim=1)
    offset = torch.randint(
        n_slots * span, (n_rows, 1), generator=generator, device=generator.device
    )
    index = torch.arange(n, device=generator.device) + offset
    return slots.gather(1, index % (n_slots * span))


def _count(n: int, ratio: float) -> int:
    """Return how many of `n` to hide: at least one, and not all, where possible."""
    if ratio == 0 or n < 2:
        return 0
    return min(max(round(ratio * n), 1), n - 1)
