"""What attention says: who is attended to, who attends, between which networks.

Maps come from ``attention(X, stream)`` of a fitted estimator. Rows attend to columns;
rows sum to one but for the signed maps of the structural stream. Maps of scans without
the modality are NaN, and so is all that is made of them. Signed heads that disagree
cancel in an averaged map: pass heads by themselves to count both.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.estimators.backbone import BaseBrainSymphony
from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.inference import Batch

PARTS = ("absolute", "positive", "negative")


def incoming(maps: ArrayLike, *, part: str = "absolute") -> np.ndarray:
    r"""Return how much each region is attended to, on average.

    .. math:: a_j = \frac{1}{R} \sum_i A_{ij}

    Parameters
    ----------
    maps : array-like of shape (..., R, R)
        Attention, itself included.
    part : {"absolute", "positive", "negative"}, default="absolute"
        What counts of a signed map: magnitudes, or those of weights of one sign.

    Returns
    -------
    ndarray of shape (..., R)
        At least 0. Sums to one over regions for maps whose rows do, else to the mean
        sum of what counts in a row.

    Raises
    ------
    ValueError
        If the maps are not square, or `part` is unknown.

    Examples
    --------
    >>> incoming([[0.5, 0.5], [0.0, 1.0]])
    array([0.25, 0.75])
    """
    return _part_of(_check_maps(maps, "incoming"), part).mean(axis=-2)


def outgoing(maps: ArrayLike, *, part: str = "absolute") -> np.ndarray:
    r"""Return how much each region attends to others.

    .. math:: b_i = \sum_{j \ne i} A_{ij}

    Parameters
    ----------
    maps : array-like of shape (..., R, R)
        Attention.
    part : {"absolute", "positive", "negative"}, default="absolute"
        What counts of a signed map: magnitudes, or those of weights of one sign.

    Returns
    -------
    ndarray of shape (..., R)
        In [0, 1] for maps whose rows sum to one: the rest stays with the region.

    Raises
    ------
    ValueError
        If the maps are not square, or `part` is unknown.

    Examples
    --------
    >>> outgoing([[0.5, 0.5], [0.0, 1.0]])
    array([0.5, 0. ])
    """
    kept = _part_of(_check_maps(maps, "outgoing"), part)
    return kept.sum(axis=-1) - np.diagonal(kept, axis1=-2, axis2=-1)


def network_blocks(maps: ArrayLike, networks: ArrayLike) -> Any:
    r"""Average a map over pairs of regions of two networks.

    .. math:: B_{PQ} = \frac{1}{|P| |Q|} \sum_{i \in P} \sum_{j \in Q} A_{ij}

    Parameters
    ----------
    maps : array-like of shape (..., R, R)
        Attention, or any other map.
    networks : array-like of str of shape (R,)
        The network of each region.

    Returns
    -------
    DataFrame of shape (N, N) for one map, else ndarray of shape (..., N, N)
        Rows attend to columns; networks in the order of their names.

    Raises
    ------
    ValueError
        If the maps are not square, or the names are not one per region.

    Examples
    --------
    >>> network_blocks([[0.4, 0.6, 0.0]] * 3, ["Vis", "Vis", "Limbic"])
            Limbic  Vis
    Limbic     0.0  0.5
    Vis        0.0  0.5
    """
    maps = _check_maps(maps, "network_blocks")
    names, members = _shares(networks, maps.shape[-1], "network_blocks")
    blocks = members @ maps @ members.T
    return pd.DataFrame(blocks, names, names) if blocks.ndim == 2 else blocks


def network_bars(values: ArrayLike, networks: ArrayLike) -> Any:
    """Average values of regions over their networks.

    With :func:`incoming`, what the published Fig. 4d shows: times the size of the
    networks, its bars sum to one.

    Parameters
    ----------
    values : array-like of shape (R,) or (n, R)
        One per region.
    networks : array-like of str of shape (R,)
        The network of each region.

    Returns
    -------
    Series of length N, or DataFrame of shape (n, N)
        Named by network, in the order of their names.

    Raises
    ------
    ValueError
        If the names are not one per region.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314. Fig. 4.

    Examples
    --------
    >>> network_bars([0.2, 0.3, 0.5], ["Vis", "Vis", "Limbic"])
    Limbic    0.50
    Vis       0.25
    dtype: float64
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (1, 2):
        raise ValueError(
            "network_bars needs values of shape (R,) or (n, R). Got "
            f"{values.shape}. Average the other axes first."
        )
    names, members = _shares(networks, values.shape[-1], "network_bars")
    bars = values @ members.T
    if bars.ndim == 1:
        return pd.Series(bars, names)
    return pd.DataFrame(bars, columns=names)


def top_edges(
    matrix: ArrayLike,
    k: int,
    labels: ArrayLike | None = None,
    networks: ArrayLike | None = None,
) -> pd.DataFrame:
    """Return the strongest pairs of different regions of one map.

    Parameters
    ----------
    matrix : array-like of shape (R, R)
        Attention of one scan, or averaged.
    k : int
        Pairs to return, at most R (R - 1).
    labels : sequence of str or None, default=None
        Names of the regions, numbers if not given.
    networks : sequence of str or None, default=None
        The network of each region.

    Returns
    -------
    DataFrame of at most k rows
        ``row`` and ``column`` (numbers), ``source`` (attends) and ``target``, their
        networks if given, and ``weight``; the largest magnitude first.

    Raises
    ------
    ValueError
        If the map is not one square matrix without NaN, or names do not fit.

    Examples
    --------
    >>> top_edges([[0.9, 0.1], [0.7, 0.3]], 1, labels=["V1", "V2"])
       row  column source target  weight
    0    1       0     V2     V1     0.7
    """
    matrix = _check_maps(matrix, "top_edges")
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(
            f"top_edges needs one map of finite numbers. Got shape {matrix.shape} with "
            f"{(~np.isfinite(matrix)).sum()} others. Average over scans that have one."
        )
    n_regions = len(matrix)
    strength = np.abs(matrix)
    np.fill_diagonal(strength, -1)
    order = np.argsort(-strength, axis=None, kind="stable")
    order = order[: min(k, n_regions * (n_regions - 1))]
    row, column = np.unravel_index(order, matrix.shape)
    edges = {"row": row, "column": column}
    numbers = np.arange(n_regions)
    named = {"": numbers if labels is None else labels, "_network": networks}
    for suffix, given in named.items():
        if given is not None:
            names = _check_names(given, n_regions, "top_edges")
            edges |= {f"source{suffix}": names[row], f"target{suffix}": names[column]}
    return pd.DataFrame({**edges, "weight": matrix[row, column]})


class TemporalProfile(NamedTuple):
    """Where in time attention goes.

    Parameters
    ----------
    lags : ndarray of shape (2 T - 1,)
        From the attending to the attended time point, in seconds if the repetition
        time was given; below zero is the past.
    attention : ndarray of shape (..., 2 T - 1)
        Mean weight of all pairs at a lag; NaN where a scan has none.
    entropy : ndarray of shape (...)
        Mean entropy of a row over that of equal weights: 0 is one time point, 1 all
        alike. That of an averaged map is above those of its heads.
    """

    lags: np.ndarray
    attention: np.ndarray
    entropy: np.ndarray


def temporal_profile(
    maps: ArrayLike, *, t_r: float = 1.0, n_timepoints: ArrayLike | None = None
) -> TemporalProfile:
    """Summarise attention between time points.

    Parameters
    ----------
    maps : array-like of shape (..., T, T)
        From ``attention(X, "temporal")``.
    t_r : float, default=1.0
        Repetition time of the model in seconds (``preprocessing_.t_r``). With 1, lags
        are in time points.
    n_timepoints : array-like of int of shape (...) or None, default=None
        Time points of each scan, where it is shorter than the window; the rest of its
        map is padding. None: all T.

    Returns
    -------
    TemporalProfile

    Raises
    ------
    ValueError
        If the maps are not square.

    Examples
    --------
    >>> profile = temporal_profile([[0.0, 1.0], [0.5, 0.5]], t_r=2.0)
    >>> profile.lags, profile.attention, float(profile.entropy)
    (array([-2.,  0.,  2.]), array([0.5 , 0.25, 1.  ]), 0.5)
    """
    maps = _check_maps(maps, "temporal_profile")
    size = maps.shape[-1]
    shape = maps.shape[:-2]
    given = size if n_timepoints is None else np.minimum(n_timepoints, size)
    lengths = np.broadcast_to(given, shape)
    exists = np.arange(size) < lengths[..., None]  # (..., T)
    pairs = exists[..., :, None] & exists[..., None, :]
    weights = np.where(pairs, maps, 0.0)
    lags = np.arange(1 - size, size)
    total, count = (
        np.stack(
            [np.diagonal(x, lag, axis1=-2, axis2=-1).sum(-1) for lag in lags], axis=-1
        )
        for x in (weights, pairs)
    )
    logs = np.log(np.where(weights > 0, weights, 1.0))
    rows = -(weights * logs).sum(-1)  # NaN weights stay NaN
    with np.errstate(invalid="ignore"):  # 0 / 0: no pair at a lag, no time point
        mean = total / count
        entropy = rows.sum(-1) / lengths / np.log(np.maximum(lengths, 2))
    return TemporalProfile(lags * float(t_r), mean, entropy)


def gate_values(model: BaseBrainSymphony, X: Any) -> np.ndarray:
    """Return the share of fMRI in the fused embedding of each region.

    Parameters
    ----------
    model : BrainSymphony estimator
        Fitted on both modalities.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.

    Returns
    -------
    ndarray of shape (n, R)
        In (0, 1), the mean over channels and windows; the rest comes from the
        connectome. NaN for scans with only one modality. Trained by the fused
        objectives only: a classifier with ``readouts`` without ``"fused"`` has the
        gate that it began with.

    Raises
    ------
    TypeError
        If the model is not a BrainSymphony estimator.
    ValueError
        If it does not read both modalities.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(6, 5, 30).data
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
    >>> gate_values(model.fit(X), X).shape
    (6, 5)
    """
    if not isinstance(model, BaseBrainSymphony):
        raise TypeError(
            f"gate_values needs a BrainSymphony estimator. Got {type(model).__name__}, "
            "which has no gate."
        )
    check_is_fitted(model)
    if len(model.modalities_) < 2:
        raise ValueError(
            "gate_values needs a model of 'fmri' and 'sc'. Got one fitted on "
            f"{list(model.modalities_)}. Fit it on scans that have both."
        )
    return model._predict(X, partial(_shares_of_fmri, model.backbone_))


def attention_rollout(maps: ArrayLike) -> np.ndarray:
    r"""Follow attention through the blocks of a stream.

    With the mean :math:`A_l` over the heads of block l and the residual branch,

    .. math:: \tilde{A}_L \cdots \tilde{A}_1,
        \qquad \tilde{A}_l = (A_l + I) / 2

    Parameters
    ----------
    maps : array-like of shape (..., L, H, N, N)
        One scan of ``attention(X, average=False)``: blocks L, heads H. Rows sum to one.

    Returns
    -------
    ndarray of shape (..., N, N)
        Rows sum to one: of what, at the input, an output is made.

    Raises
    ------
    ValueError
        If the maps have no blocks and heads, or negative weights.

    References
    ----------
    .. [1] Abnar & Zuidema (2020). Quantifying attention flow in transformers. ACL.

    Examples
    --------
    >>> attention_rollout([[[[0.0, 1.0], [1.0, 0.0]]]])
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    maps = _check_maps(maps, "attention_rollout")
    if maps.ndim < 4 or (maps < 0).any():
        raise ValueError(
            "attention_rollout needs maps of shape (..., blocks, heads, N, N) without "
            f"negative weights. Got shape {maps.shape} with a minimum of "
            f"{maps.min():.3g}. Use `average=False` and a stream that is not signed."
        )
    identity = np.eye(maps.shape[-1])
    blocks = (maps.mean(axis=-3) + identity) / 2  # (..., L, N, N)
    flow = blocks[..., 0, :, :]
    for block in range(1, blocks.shape[-3]):
        flow = blocks[..., block, :, :] @ flow
    return flow


def _shares_of_fmri(backbone: BrainSymphony, batch: Batch) -> Tensor:
    """Return the gate averaged over channels (B, R), NaN without a modality."""
    out = backbone(**batch, decode=False)
    if out.gate is None:  # a batch of one modality only
        return torch.full_like(out.fused[..., 0], torch.nan)
    share = out.gate.mean(-1)
    for flag in ("has_fmri", "has_sc"):
        if flag in batch:
            share = share.masked_fill(~batch[flag].unsqueeze(1), torch.nan)
    return share


def _check_maps(maps: ArrayLike, who: str) -> np.ndarray:
    """Return maps as an array of square matrices."""
    maps = np.asarray(maps, dtype=float)
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(
            f"{who} needs square maps of shape (..., N, N). Got shape {maps.shape}. "
            "Pass what `attention` returns, or one scan of its list."
        )
    return maps


def _check_names(names: ArrayLike, n_regions: int, who: str) -> np.ndarray:
    """Return one name per region."""
    names = np.asarray(names)
    if names.shape != (n_regions,):
        raise ValueError(
            f"{who} needs one name per region. Got {names.size} for {n_regions}."
        )
    return names


def _part_of(maps: np.ndarray, part: str) -> np.ndarray:
    """Return the magnitudes of the weights that count."""
    check_choice(part, PARTS, "part")
    if part == "absolute":
        return np.abs(maps)
    # minimum and maximum, unlike `where`, keep NaN
    return np.maximum(maps, 0) if part == "positive" else -np.minimum(maps, 0)


def _shares(
    networks: ArrayLike, n_regions: int, who: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return names (N,) and the share of each region in its network, (N, R)."""
    owners = _check_names(networks, n_regions, who).astype(str)
    names, codes = np.unique(owners, return_inverse=True)
    members = (codes == np.arange(len(names))[:, None]).astype(float)
    return names, members / members.sum(axis=1, keepdims=True)
