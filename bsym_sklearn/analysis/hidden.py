"""What is hidden of scans, what it is compared with, and how it is scored.

Shape letters: n scans, T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state

from bsym_sklearn.data.checks import check_option
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.training.masking import mask_edges, mask_regions, mask_time_points

HIDE = ("regions", "time_points", "edges")
PERMUTE = (None, "regions", "time", "scans")
ROUNDING = 1e-12  # a deviation smaller than this share of the values
Scans = list[np.ndarray | None]


def draw_masks(
    scans: Sequence[np.ndarray | None],
    *,
    hide: str = "regions",
    ratio: float = 0.3,
    span: int = 1,
    random_state: int | np.random.RandomState | None = 0,
) -> list[np.ndarray | None]:
    """Draw what to hide of each scan.

    Parameters
    ----------
    scans : sequence of (ndarray of shape (T_i, R) or (R, R), or None) of length n
        Series or connectomes; only their shapes count.
    hide : {"regions", "time_points", "edges"}, default="regions"
        Whole regions of a series, whole time points, or edges of the connectome.
    ratio : float, default=0.3
        Share to hide, in (0, 1).
    span : int, default=1
        Length of hidden runs of time points.
    random_state : int, RandomState instance or None, default=0
        Draws what is hidden.

    Returns
    -------
    list of (bool ndarray or None) of length n
        True where hidden, of the shape of the scan; symmetric for edges.

    Examples
    --------
    >>> draw_masks([np.zeros((2, 4)), None], ratio=0.5)[0].astype(int)
    array([[1, 0, 0, 1],
           [1, 0, 0, 1]])
    """
    check_options(hide, ratio, None)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    generator = torch.Generator().manual_seed(seed)
    masks: list[np.ndarray | None] = []
    for scan in scans:
        if scan is None:
            masks.append(None)
        elif hide == "edges":
            masks.append(mask_edges(1, len(scan), ratio, generator)[0].numpy())
        elif hide == "regions":
            line = mask_regions(1, scan.shape[1], ratio, generator).numpy()
            masks.append(np.broadcast_to(line, scan.shape).copy())
        else:
            line = mask_time_points(1, len(scan), ratio, generator, span=span).numpy()
            masks.append(np.broadcast_to(line.T, scan.shape).copy())
    return masks


def check_options(hide: str, ratio: float, permute: str | None) -> None:
    """Raise if a parameter is out of range or does not fit another.

    Parameters
    ----------
    hide, ratio, permute
        See :func:`~bsym_sklearn.analysis.reconstruction.score_hidden`.

    Raises
    ------
    ValueError
        If so.

    Examples
    --------
    >>> check_options("regions", 1.5, None)
    Traceback (most recent call last):
    ValueError: ratio must be above 0 and below 1. Got 1.5.
    """
    check_option("hide", hide, HIDE)
    check_option("permute", permute, PERMUTE)
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must be above 0 and below 1. Got {ratio!r}.")
    if hide == "edges" and permute == "time":
        raise ValueError(
            "permute='time' needs series. Got hide='edges'. Permute 'regions' or "
            "'scans'."
        )


def permute_scans(
    truth: Scans,
    permute: str | None,
    owners: np.ndarray,
    random: np.random.RandomState,
    modality: str,
) -> Scans:
    """Return what reconstructions are compared with in a control.

    Parameters
    ----------
    truth : list of (ndarray of shape (T_i, R) or (R, R), or None) of length n
        Scans; None where there is none.
    permute : {"regions", "time", "scans"} or None
        See :func:`~bsym_sklearn.analysis.reconstruction.score_hidden`.
    owners : ndarray of shape (n,)
        Participant of each scan.
    random : RandomState
        Source of randomness.
    modality : {"fmri", "sc"}
        What the scans are.

    Returns
    -------
    list of (ndarray or None) of length n
        Of the shapes of `truth`; NaN where a shorter scan stands in for a longer one.

    Raises
    ------
    BrainDataError
        If there is no scan of another participant.

    Examples
    --------
    >>> truth = [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])]
    >>> random = np.random.RandomState(0)
    >>> permute_scans(truth, "regions", np.arange(2), random, "fmri")
    [array([[2., 1.]]), array([[4., 3.]])]
    """
    if permute is None:
        return truth
    present = np.array([scan is not None for scan in truth])
    result: Scans = []
    for i, scan in enumerate(truth):
        if scan is None:
            result.append(None)
        elif permute == "time":
            least = max(len(scan) // 4, 1)
            shift = random.randint(least, max(len(scan) - least, least) + 1)
            result.append(np.roll(scan, shift, axis=0))
        elif permute == "regions":
            other = _derangement(scan.shape[1], random)
            moved = scan[:, other]
            result.append(moved[other] if modality == "sc" else moved)
        else:
            others = np.flatnonzero(present & (owners != owners[i]))
            if len(others) == 0:
                raise BrainDataError(
                    "permute='scans' needs scans of two participants. Got one. Permute "
                    "'regions' or 'time'."
                )
            result.append(_fit_length(truth[random.choice(others)], len(scan)))
    return result


def score_columns(
    true: np.ndarray, guess: np.ndarray, hidden: np.ndarray
) -> pd.DataFrame:
    """Score the hidden values of each column that has any.

    Parameters
    ----------
    true, guess : ndarray of shape (n_values, n_columns)
        Truth and reconstruction.
    hidden : bool ndarray of shape (n_values, n_columns)
        What to compare.

    Returns
    -------
    DataFrame
        ``r2``, ``pearson``, ``mae``, ``n_hidden``, ``squared_error`` and
        ``squared_spread``, named by the column's number; R2 is NaN where the truth does
        not vary, the correlation where either does not.

    Examples
    --------
    >>> true, guess = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [3.0], [4.0]])
    >>> scores = score_columns(true, guess, np.ones((3, 1), bool))
    >>> scores[["r2", "pearson", "mae"]].round(2).values.tolist()
    [[-0.5, 1.0, 1.0]]
    """
    columns = np.flatnonzero(hidden.any(axis=0))
    hidden = hidden[:, columns]
    n = hidden.sum(axis=0)
    t = np.where(hidden, true[:, columns], 0.0)
    p = np.where(hidden, guess[:, columns], 0.0)
    error = t - p
    t_centred = np.where(hidden, t - t.sum(axis=0) / n, 0.0)
    p_centred = np.where(hidden, p - p.sum(axis=0) / n, 0.0)
    spread = _without_rounding(t_centred, t)
    squares = (error**2).sum(axis=0)
    scale = np.sqrt(spread * _without_rounding(p_centred, p))
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - squares / spread, np.nan)
        together = (t_centred * p_centred).sum(axis=0)
        pearson = np.where(scale > 0, together / scale, np.nan)
    return pd.DataFrame(
        {
            "r2": r2,
            "pearson": pearson,
            "mae": np.abs(error).sum(axis=0) / n,
            "n_hidden": n,
            "squared_error": squares,
            "squared_spread": spread,
        },
        index=columns,
    )


def _derangement(n: int, random: np.random.RandomState) -> np.ndarray:
    """Return a random order of `n` in which nothing stays where it was."""
    order = random.permutation(n)
    result = np.empty(n, dtype=int)
    result[order] = np.roll(order, 1)
    return result


def _fit_length(scan: np.ndarray | None, n: int) -> np.ndarray | None:
    """Return the first `n` rows of a scan, NaN where it has fewer."""
    if scan is None or len(scan) >= n:
        return None if scan is None else scan[:n]
    return np.pad(scan, ((0, n - len(scan)), (0, 0)), constant_values=np.nan)


def _without_rounding(centred: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return sums of squares, 0 where they are what rounding leaves of a constant."""
    spread = (centred**2).sum(axis=0)
    return np.where(spread > ROUNDING**2 * (values**2).sum(axis=0), spread, 0.0)
