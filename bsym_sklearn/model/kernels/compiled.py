"""Token attention on a CPU, compiled by numba; equal to :mod:`.plain`.

One pass over the scores of each query, none of which is kept. The loops are in
:mod:`.loops`. They are serial and run in Python threads, which they let go: numba's
own threads, beside those of torch, make torch up to twenty times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bsym_sklearn.model.kernels import loops
from bsym_sklearn.model.kernels.interface import (
    ABSENT,
    TAPS,
    Gradients,
    Moments,
    Received,
)

LANES = 16  # numbers in the widest vector
MIN_SCORES_PER_THREAD = 1 << 18  # with fewer, starting a thread costs more


def forward(
    alpha: Tensor, beta: Tensor, slope: Tensor, scale: Tensor, series: Tensor
) -> Moments:
    """See :class:`~bsym_sklearn.model.kernels.interface.Kernel`."""
    n_scans, n_queries, _ = alpha.shape
    n_times = beta.shape[2]
    beta, scale, series = _pad(beta, scale, series)
    moments = Moments(
        rows=torch.empty_like(alpha),
        columns=torch.empty_like(beta),
        taps=torch.empty_like(slope),
        mass=torch.empty_like(alpha),
        log_total=alpha.new_empty(n_scans, n_queries),
    )
    arrays = _arrays(alpha, beta, slope, scale, series, *moments)
    n_threads = _n_threads(alpha.numel() * n_times)
    parts = _split(n_scans * n_queries, n_threads)
    _run(
        (partial(loops.forward, first, last, *arrays) for first, last in parts),
        n_threads,
    )
    return moments._replace(columns=_cut(moments.columns, n_times))


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
    n_scans, _, n_regions = alpha.shape
    n_times = beta.shape[2]
    beta, scale, series = _pad(beta, scale, series)
    given = given._replace(columns=F.pad(given.columns, (0, beta.shape[2] - n_times)))
    n_threads = _n_threads(alpha.numel() * n_times)
    # Scans are independent. With fewer of them than threads, each is cut into parts
    # of regions; these share their queries, and so need sums of their own.
    parts = _split(n_regions, -(-n_threads // n_scans))
    d_alpha = torch.empty_like(alpha)
    d_beta = beta.new_zeros(len(parts), *beta.shape)
    d_slope = slope.new_zeros(len(parts), *slope.shape)
    d_scale = torch.zeros_like(scale)
    n_taps = TAPS if with_series else 0
    d_windows = scale.new_zeros(n_scans, n_regions, n_taps, beta.shape[2])
    arrays = _arrays(
        alpha, beta, slope, scale, series, *given, d_alpha, d_scale, d_windows
    )
    loop = loops.backward_with_series if with_series else loops.backward
    jobs = (
        partial(loop, scan, first, last, *arrays, *_arrays(d_beta[i], d_slope[i]))
        for scan in range(n_scans)
        for i, (first, last) in enumerate(parts)
    )
    _run(jobs, n_threads)
    return Gradients(
        alpha=d_alpha,
        beta=_cut(d_beta.sum(0), n_times),
        slope=d_slope.sum(0),
        scale=_cut(d_scale / scale, n_times),
        windows=_cut(d_windows, n_times) if with_series else None,
    )


def _pad(beta: Tensor, scale: Tensor, series: Tensor) -> tuple[Tensor, ...]:
    """Extend time to whole vectors by absent points, the series by its windows."""
    extra = -beta.shape[2] % LANES
    return (
        F.pad(beta, (0, extra), value=ABSENT),
        F.pad(scale, (0, extra), value=1.0),
        F.pad(series, (TAPS // 2, TAPS // 2 + extra)),
    )


def _cut(x: Tensor, n_times: int) -> Tensor:
    """Take what :func:`_pad` added off again."""
    return x[..., :n_times].contiguous()


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Return the memory of `tensors` as contiguous arrays."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _n_threads(n_scores: int) -> int:
    """Return how many of torch's threads are worth using."""
    return max(min(torch.get_num_threads(), n_scores // MIN_SCORES_PER_THREAD), 1)


def _split(n: int, n_parts: int) -> list[tuple[int, int]]:
    """Cut range(n) into at most `n_parts` runs of nearly equal length."""
    size = -(-n // n_parts)
    return [(first, min(first + size, n)) for first in range(0, n, size)]


def _run(jobs: Iterable[Callable[[], None]], n_threads: int) -> None:
    """Call all `jobs`. The threads end with them: a fork must not inherit any."""
    if n_threads == 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(n_threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
