"""Token attention in torch alone, for any device; a few queries at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from bsym_sklearn.model.kernels.interface import TAPS, Gradients, Moments, Received

# Scores held at once: what the caches of a core hold, or what fills a GPU.
CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}


def forward(
    alpha: Tensor, beta: Tensor, slope: Tensor, scale: Tensor, series: Tensor
) -> Moments:
    """See :class:`~bsym_sklearn.model.kernels.interface.Kernel`."""
    moments = Moments(
        rows=torch.empty_like(alpha),
        columns=torch.empty_like(beta),
        taps=torch.empty_like(slope),
        mass=torch.empty_like(alpha),
        log_total=alpha.new_empty(alpha.shape[:2]),
    )
    windows = scaled_windows(series, scale)  # (B, TAPS, R T)
    for scan, queries in _chunks(alpha, beta):
        at = scan, queries
        score = _linear(alpha[at], beta[at], slope[at], scale[scan], windows[scan])
        highest = score.amax((2, 3))
        p = score.sub_(highest[..., None, None]).exp_()
        mass = p.sum(3)
        total = mass.sum(2)
        share = total.reciprocal().unsqueeze(2)
        moments.taps[at] = (p.flatten(2) @ windows[scan].transpose(1, 2)) * share
        q = p.mul_(scale[scan].unsqueeze(1))
        moments.rows[at] = q.sum(3) * share
        moments.columns[at] = q.sum(2) * share
        moments.mass[at] = mass * share
        moments.log_total[at] = highest + total.log()
    return moments


def backward(
    alpha: Tensor,
    beta: Tensor,
    slope: Tensor,
    scale: Tensor,
    series: Tensor,
    given: Received,
    *,
    with_series: bool,
) -> Gradients:
    """See :class:`~bsym_sklearn.model.kernels.interface.Kernel`."""
    gradients = Gradients(
        alpha=torch.empty_like(alpha),
        beta=torch.empty_like(beta),
        slope=torch.empty_like(slope),
        scale=torch.zeros_like(scale),
        windows=None,
    )
    windows = scaled_windows(series, scale)  # (B, TAPS, R T)
    d_windows = torch.zeros_like(windows) if with_series else None
    for scan, queries in _chunks(alpha, beta):
        at, here, around = (scan, queries), scale[scan], windows[scan]
        score = _linear(alpha[at], beta[at], slope[at], here, around)  # (b, n, R, T)
        p = (score - given.log_total[at][..., None, None]).exp_()
        d_p = _linear(given.rows[at], given.columns[at], given.taps[at], here, around)
        if d_windows is not None:
            d_windows[scan] += given.taps[at].transpose(1, 2) @ p.flatten(2)
        d_scale = (p * d_p).sum(1)
        d_score = d_p.sub_(given.delta[at][..., None, None]).mul_(p)
        d_scale += score.mul_(d_score).sum(1)
        gradients.scale[scan] += d_scale
        gradients.slope[at] = d_score.flatten(2) @ around.transpose(1, 2)
        if d_windows is not None:
            d_windows[scan] += slope[at].transpose(1, 2) @ d_score.flatten(2)
        d_score.mul_(here.unsqueeze(1))
        gradients.alpha[at] = d_score.sum(3)
        gradients.beta[at] = d_score.sum(2)
    gradients.scale.div_(scale)
    if d_windows is None:
        return gradients
    d_windows = d_windows.unflatten(2, scale.shape[1:]).transpose(1, 2)
    return gradients._replace(windows=d_windows * scale.unsqueeze(2))


def scaled_windows(series: Tensor, scale: Tensor) -> Tensor:
    """Return each sample's window over its standard deviation, (B, TAPS, R T).

    Examples
    --------
    >>> import torch
    >>> ones = torch.ones(1, 1, 2)
    >>> scaled_windows(ones, ones)[0, :, 0]
    tensor([0., 0., 1., 1., 0.])
    """
    n_times = series.shape[2]
    series = F.pad(series, (TAPS // 2, TAPS // 2))
    taps = [series[..., k : k + n_times] * scale for k in range(TAPS)]
    return torch.stack(taps, dim=1).flatten(2)


def _linear(
    row: Tensor, column: Tensor, tap: Tensor, scale: Tensor, windows: Tensor
) -> Tensor:
    """Return (row + column + tap . window) * scale for all tokens, (b, n, R, T)."""
    grid = (row.unsqueeze(3) + column.unsqueeze(2)).mul_(scale.unsqueeze(1))
    flat = grid.flatten(2)
    for scan in range(len(flat)):
        flat[scan].addmm_(tap[scan], windows[scan])
    return grid


def _chunks(alpha: Tensor, beta: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of scans and of queries whose scores fit into CHUNK_BYTES."""
    n_scans, n_queries, n_regions = alpha.shape
    scores = n_regions * beta.shape[2] * alpha.element_size()
    fit = max(CHUNK_BYTES.get(alpha.device.type, 1 << 26) // scores, 1)
    scans = max(fit // n_queries, 1)
    queries = min(fit, n_queries)
    for scan in range(0, n_scans, scans):
        for query in range(0, n_queries, queries):
            yield slice(scan, scan + scans), slice(query, query + queries)
