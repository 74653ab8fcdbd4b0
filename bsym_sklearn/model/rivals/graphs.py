"""Graphs of partial correlations, kept dense.

Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsym_sklearn.model.rivals.rival import zero_padding


def partial_correlations(fmri: Tensor, padding: Tensor | None = None) -> Tensor:
    r"""Return the partial correlations of the regions in each window.

    :math:`-q_{rs} / \sqrt{q_{rr} q_{ss}}` for the inverse :math:`q` of the covariance
    with the shrinkage of Ledoit and Wolf, as nilearn's ``ConnectivityMeasure``.
    Differentiable in the series.

    Parameters
    ----------
    fmri : Tensor of shape (B, T, R)
        Series.
    padding : bool Tensor of shape (B, T) or None
        True where a time point does not exist.

    Returns
    -------
    Tensor of shape (B, R, R)
        Symmetric, in [-1, 1], with a zero diagonal.

    References
    ----------
    .. [1] Ledoit and Wolf (2004). A well-conditioned estimator for large-dimensional
       covariance matrices. J. Multivariate Analysis 88, 365-411.

    Examples
    --------
    >>> import torch
    >>> series = torch.tensor([[[1.0, 2], [-1, -2], [2, 2], [-2, -2]]])
    >>> partial_correlations(series).round(decimals=2)
    tensor([[[0.0000, 0.8900],
             [0.8900, 0.0000]]])
    """
    with torch.autocast(fmri.device.type, enabled=False):  # inverses need precision
        series = zero_padding(fmri, padding)
        series = series if series.dtype == torch.float64 else series.float()
        covariance = _shrunk_covariance(series, padding)
        n_regions = covariance.shape[-1]
        identity = torch.eye(n_regions, dtype=covariance.dtype, device=fmri.device)
        floor = torch.finfo(covariance.dtype).eps  # for windows that never change
        # The variant that reports no errors does not wait for the device.
        precision = torch.linalg.inv_ex(covariance + floor * identity).inverse
        scale = precision.diagonal(dim1=1, dim2=2).rsqrt()
        return precision * scale.unsqueeze(1) * scale.unsqueeze(2) * (identity - 1)


def _shrunk_covariance(series: Tensor, padding: Tensor | None) -> Tensor:
    """Return the covariance (B, R, R) of Ledoit and Wolf; padding is zero."""
    n_regions = series.shape[2]
    exists = series.new_ones(series.shape[:2]) if padding is None else ~padding
    exists = exists.to(series).unsqueeze(-1)  # (B, T, 1)
    count = exists.sum(1, keepdim=True).clamp(min=1)  # (B, 1, 1)
    centred = (series - series.sum(1, keepdim=True) / count) * exists
    covariance = centred.transpose(1, 2) @ centred / count
    trace = covariance.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    mean = trace / n_regions
    square = covariance.square().sum((1, 2), keepdim=True)
    fourth = centred.square().sum(2).square().sum(1)[:, None, None] / count
    spread = (square - n_regions * mean.square()).clamp(min=0)  # R times d^2
    noise = (fourth - square) / count  # R times b^2
    tiny = torch.finfo(covariance.dtype).tiny
    shrinkage = (noise / spread.clamp(min=tiny)).clamp(0, 1)
    identity = torch.eye(n_regions, dtype=covariance.dtype, device=series.device)
    return (1 - shrinkage) * covariance + shrinkage * mean * identity


def strongest_edges(weights: Tensor, share: float) -> Tensor:
    """Keep the largest positive weights of each graph and zero the rest.

    Parameters
    ----------
    weights : Tensor of shape (B, R, R)
        Symmetric.
    share : float
        Of the R (R - 1) / 2 edges, in (0, 1]; at least one edge is kept.

    Returns
    -------
    Tensor of shape (B, R, R)
        Symmetric and non-negative, with a zero diagonal.

    Examples
    --------
    >>> import torch
    >>> weights = torch.tensor([[[0, 0.2, 0.5], [0.2, 0, -1], [0.5, -1, 0]]])
    >>> strongest_edges(weights, 0.4)
    tensor([[[0.0000, 0.0000, 0.5000],
             [0.0000, 0.0000, 0.0000],
             [0.5000, 0.0000, 0.0000]]])
    """
    n_regions = weights.shape[-1]
    upper = torch.ones(
        n_regions, n_regions, dtype=torch.bool, device=weights.device
    ).triu(1)
    edges = weights.masked_fill(~upper, 0).flatten(1)
    n_kept = max(1, round(share * n_regions * (n_regions - 1) / 2))
    best, where = edges.topk(n_kept, dim=1)
    kept = torch.zeros_like(edges).scatter(1, where, best.clamp(min=0))
    kept = kept.unflatten(1, weights.shape[1:])
    return kept + kept.transpose(1, 2)
