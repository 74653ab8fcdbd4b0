"""How well hidden parts of scans are reconstructed, against controls.

Models are a :class:`~bsym_sklearn.BrainSymphonyEmbedder` or one of
:mod:`bsym_sklearn.analysis.imputation`: anything with ``scaled(X, modality)`` and
``reconstruct(X, modality=..., mask=...)``.

Shape letters: n scans, T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp
from sklearn.utils import check_random_state

from bsym_sklearn.analysis.hidden import (
    Scans,
    check_options,
    draw_masks,
    permute_scans,
    score_columns,
)
from bsym_sklearn.data.checks import check_option
from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.estimators.covariates import covariates, participants
from bsym_sklearn.exceptions import BrainDataError

SCORES = ("r2", "pearson", "mae")
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ALL_EDGES = "all edges"


class ConnectomeScores(NamedTuple):
    """What :func:`score_connectomes` says.

    Attributes
    ----------
    scans : DataFrame of shape (n_scans, 7)
        ``scan``, ``participant``; over the edges of the scan: ``pattern`` (Pearson
        correlation), ``r2``, ``mae``; ``ks``, the largest distance between the
        cumulative distributions of observed and reconstructed weights, in [0, 1]; and
        ``n_edges``.
    edges : DataFrame of shape (R * (R - 1) / 2, 6)
        ``region``, ``other``; over the scans: ``observed`` (mean), ``r2`` (0 is as
        good as the edge's own mean in these scans), ``pearson`` and ``mae``.
    weights : DataFrame of shape (7, 2)
        Quantiles of the ``observed`` and the ``reconstructed`` weights of all scans.
    reconstructed : ndarray of shape (n, R, R)
        Every edge as predicted while it was hidden; NaN without a connectome.
    """

    scans: pd.DataFrame
    edges: pd.DataFrame
    weights: pd.DataFrame
    reconstructed: np.ndarray


def score_hidden(
    model: Any,
    X: Any,
    *,
    hide: str = "regions",
    ratio: float = 0.3,
    span: int = 1,
    permute: str | None = None,
    by: str | None = None,
    group_column: str = "participant_id",
    random_state: int | np.random.RandomState | None = 0,
) -> pd.DataFrame:
    """Hide parts of scans, reconstruct them, and score every region of every scan.

    What is hidden depends on `random_state` and the sizes of the scans only, so that
    it is the same for every model at one repetition time.

    Parameters
    ----------
    model : estimator
        Fitted, preferably on other participants.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`. Scans without the modality have no
        rows in the table.
    hide : {"regions", "time_points", "edges"}, default="regions"
        Whole regions of a series, whole time points, or edges of the connectome.
    ratio : float, default=0.3
        Share to hide, in (0, 1).
    span : int, default=1
        Length of hidden runs of time points.
    permute : {"regions", "time", "scans"} or None, default=None
        Control: compare the reconstruction with something else than the truth, namely
        with another region of the scan (a random derangement), with the scan moved in
        time (circularly, by a quarter of its length or more), or with a scan of another
        participant.
    by : str or None, default=None
        Column of X that becomes ``condition``.
    group_column : str, default="participant_id"
        Column that names the participant; without it each scan is its own.
    random_state : int, RandomState instance or None, default=0
        Draws what is hidden and permuted.

    Returns
    -------
    DataFrame
        One row per scan and region with hidden values; one per scan for edges:

        - ``scan`` (row of X), ``participant``, ``region`` (label or number, or
          ``"all edges"``), ``condition`` (``"all"`` without `by`);
        - ``r2`` (at most 1; 0 is as good as the mean of the hidden values), ``pearson``
          in [-1, 1], ``mae`` in the model's units, each over the ``n_hidden`` values;
          NaN where they do not vary;
        - ``squared_error`` and ``squared_spread``, the sums that `r2` is made of.

    Raises
    ------
    BrainDataError
        If no scan has the modality, or nobody is there to permute with.
    ValueError
        If a parameter is out of range or does not fit another.

    Examples
    --------
    >>> from bsym_sklearn.analysis.imputation import RidgeRegions
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=4, n_regions=6, n_timepoints=50).data
    >>> model = RidgeRegions().fit(X[:2])
    >>> table = score_hidden(model, X[2:], hide="regions", ratio=0.3)
    >>> table[["scan", "region", "n_hidden"]].values.tolist()
    [[0, 'region-4', 50], [0, 'region-5', 50],
     [1, 'region-1', 50], [1, 'region-5', 50]]
    """
    check_options(hide, ratio, permute)
    modality = "sc" if hide == "edges" else "fmri"
    truth = _scans_of(model.scaled(X, modality), modality)
    table = _describe_scans(X, by, group_column, who="score_hidden")
    random = check_random_state(random_state)
    masks = draw_masks(truth, hide=hide, ratio=ratio, span=span, random_state=random)
    decoded = _scans_of(model.reconstruct(X, modality=modality, mask=masks), modality)
    owners = table["participant"].to_numpy()
    truth = permute_scans(truth, permute, owners, random, modality)
    names = _region_names(X)
    parts = []
    for i, (true, guess, mask) in enumerate(zip(truth, decoded, masks, strict=True)):
        if true is None or guess is None or mask is None:
            continue
        if hide == "edges":
            upper = np.triu(mask)
            pairs = true[upper][:, None], guess[upper][:, None]
            scores = score_columns(*pairs, np.ones((int(upper.sum()), 1), bool))
            scores.insert(0, "region", ALL_EDGES)
        else:
            mask = mask & ~np.isnan(true)  # another scan may be shorter
            scores = score_columns(true, guess, mask)
            scores.insert(0, "region", [names[r] for r in scores.index])
        parts.append(table.iloc[[i] * len(scores)].assign(**scores.to_dict("list")))
    columns = ["scan", "participant", "region", "condition", *SCORES, "n_hidden"]
    columns += ["squared_error", "squared_spread"]
    return pd.concat(parts, ignore_index=True)[columns]


def summarize_hidden(
    table: pd.DataFrame,
    *,
    by: str | Sequence[str] = "condition",
    over: str = "participant",
) -> pd.DataFrame:
    """Average what :func:`score_hidden` says.

    Parameters
    ----------
    table : DataFrame
        From :func:`score_hidden`; several may be concatenated, with columns that tell
        them apart (``model``, ``ratio``, ``seed``).
    by : str or sequence of str, default="condition"
        Columns to keep apart, ``"region"`` for example.
    over : {"participant", "scan"}, default="participant"
        What the mean and the standard deviation are of. Within one, R2 is pooled (its
        sums are added up before they are divided), so that regions with few hidden
        values do not dominate; the other scores are averaged.

    Returns
    -------
    DataFrame
        One row per value of `by`: ``r2``, ``r2_sd``, ``pearson``, ``pearson_sd``,
        ``mae``, ``mae_sd`` and ``n``, how many participants or scans. A standard
        deviation of one is NaN.

    Raises
    ------
    ValueError
        If a column is missing.

    Examples
    --------
    >>> from bsym_sklearn.analysis.imputation import RegionMean
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=4, n_regions=6, n_timepoints=50).data
    >>> table = score_hidden(RegionMean().fit(X), X)
    >>> list(summarize_hidden(table).columns)
    ['r2', 'r2_sd', 'pearson', 'pearson_sd', 'mae', 'mae_sd', 'n']
    """
    check_option("over", over, ("participant", "scan"))
    keys = [by] if isinstance(by, str) else list(by)
    missing = [name for name in [*keys, over, *SCORES] if name not in table]
    if missing:
        raise ValueError(
            f"summarize_hidden needs a column {missing[0]!r}. Got {list(table)}. Pass "
            "what score_hidden returns."
        )
    varies = table["r2"].notna()
    known = table.assign(
        squared_error=table["squared_error"].where(varies),
        squared_spread=table["squared_spread"].where(varies),
        weighted=table["mae"] * table["n_hidden"],
    )
    groups = known.groupby(
        list(dict.fromkeys([*keys, over])), sort=False, observed=True
    )
    sums = groups[["squared_error", "squared_spread", "weighted", "n_hidden"]].sum()
    spread = sums["squared_spread"]
    each = pd.DataFrame(
        {
            "r2": 1 - sums["squared_error"] / spread.where(spread > 0),
            "pearson": groups["pearson"].mean(),
            "mae": sums["weighted"] / sums["n_hidden"],
        }
    )
    whole = each.groupby(keys, sort=False, observed=True)
    result = whole.agg(["mean", "std"])
    result.columns = [f"{a}{'_sd' if b == 'std' else ''}" for a, b in result.columns]
    return result.assign(n=whole.size())


def score_connectomes(
    model: Any,
    X: Any,
    *,
    n_folds: int | None = 5,
    permute: str | None = None,
    group_column: str = "participant_id",
    random_state: int | np.random.RandomState | None = 0,
) -> ConnectomeScores:
    """Reconstruct whole connectomes, each edge while it is hidden, and score them.

    Parameters
    ----------
    model : estimator
        Fitted, preferably on other participants.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`. Scans without a connectome are
        left out of all tables.
    n_folds : int or None, default=5
        The edges are split at random into that many parts, hidden one after the other,
        at least 2. None hides nothing: how well the model repeats what it sees.
    permute : {"regions", "scans"} or None, default=None
        Control, see :func:`score_hidden`. Whatever all people share survives
        ``"scans"``.
    group_column : str, default="participant_id"
        Column that names the participant; without it each scan is its own.
    random_state : int, RandomState instance or None, default=0
        Splits the edges and permutes.

    Returns
    -------
    ConnectomeScores

    Raises
    ------
    BrainDataError
        If no scan has a connectome, or nobody is there to permute with.
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from bsym_sklearn.analysis.imputation import MeanEdges
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=6, n_regions=5, n_timepoints=20).data
    >>> scores = score_connectomes(MeanEdges().fit(X[:4]), X[4:])
    >>> len(scores.scans), len(scores.edges), scores.reconstructed.shape
    (2, 10, (2, 5, 5))
    """
    check_option("permute", permute, (None, "regions", "scans"))
    truth = _scans_of(model.scaled(X, "sc"), "sc")
    table = _describe_scans(X, None, group_column, who="score_connectomes")
    random = check_random_state(random_state)
    decoded = _hidden_once(model, X, truth, n_folds, random)
    owners = table["participant"].to_numpy()
    truth = permute_scans(truth, permute, owners, random, "sc")
    rows = [i for i, scan in enumerate(truth) if scan is not None]
    first, second = np.triu_indices(decoded.shape[1], 1)
    observed = np.stack([s[first, second] for s in truth if s is not None])
    guessed = decoded[rows][:, first, second]
    scans = table.iloc[rows][["scan", "participant"]].reset_index(drop=True)
    scores = score_columns(observed.T, guessed.T, np.ones(observed.T.shape, bool))
    for name, column in (("pattern", "pearson"), ("r2", "r2"), ("mae", "mae")):
        scans[name] = scores[column]
    pairs = list(zip(observed, guessed, strict=True))
    scans["ks"] = [float(ks_2samp(*pair).statistic) for pair in pairs]
    scans["n_edges"] = observed.shape[1]
    names = np.array(_region_names(X), dtype=object)
    edges = pd.DataFrame({"region": names[first], "other": names[second]})
    edges["observed"] = observed.mean(axis=0)
    per_edge = score_columns(observed, guessed, np.ones(observed.shape, bool))
    edges[list(SCORES)] = per_edge[list(SCORES)]
    weights = pd.DataFrame(
        {
            "observed": np.quantile(observed, QUANTILES),
            "reconstructed": np.quantile(guessed, QUANTILES),
        },
        index=pd.Index(QUANTILES, name="quantile"),
    )
    return ConnectomeScores(scans, edges, weights, decoded)


def _scans_of(scans: Any, modality: str) -> Scans:
    """Return a list with None where the modality is missing, and check that some is."""
    found = [
        None if s is None or (modality == "sc" and np.isnan(s).all()) else s
        for s in scans
    ]
    if all(scan is None for scan in found):
        raise BrainDataError(
            f"Reconstruction needs {modality!r} in at least one scan. Got none of "
            f"{len(found)}. Pass scans that have it."
        )
    return [None if s is None else np.asarray(s, np.float64) for s in found]


def _describe_scans(
    X: Any, by: str | None, group_column: str, *, who: str
) -> pd.DataFrame:
    """Return row, participant and condition of each scan."""
    table = covariates(X)
    if by is not None and by not in table:
        raise ValueError(
            f"{who} needs a column {by!r} for `by`. Got {list(table)}. Name a column "
            "of X."
        )
    owners = participants(X, group_column, who)
    condition = "all" if by is None else table[by].to_numpy()
    return pd.DataFrame(
        {"scan": range(len(owners)), "participant": owners, "condition": condition}
    )


def _region_names(X: Any) -> list[Any]:
    """Return the labels of the regions, or their numbers."""
    cohort = check_cohort(X, constant_regions="mask", symmetric_sc="allow")
    if cohort.regions is None or "label" not in cohort.regions:
        return list(range(cohort.n_regions))
    return cohort.regions["label"].tolist()


def _hidden_once(
    model: Any,
    X: Any,
    truth: Scans,
    n_folds: int | None,
    random: np.random.RandomState,
) -> np.ndarray:
    """Return connectomes (n, R, R) of which each edge was predicted while hidden."""
    if n_folds is None:
        return np.asarray(model.reconstruct(X, modality="sc"), np.float64)
    if n_folds < 2:
        raise ValueError(f"n_folds must be None or at least 2. Got {n_folds!r}.")
    n_regions = next(len(scan) for scan in truth if scan is not None)
    first, second = np.triu_indices(n_regions, 1)
    part = random.permutation(np.arange(len(first)) % n_folds)
    result = np.full((len(truth), n_regions, n_regions), np.nan)
    for k in range(n_folds):
        mask = np.zeros((n_regions, n_regions), dtype=bool)
        mask[first[part == k], second[part == k]] = True
        mask |= mask.T
        masks = [None if scan is None else mask for scan in truth]
        decoded = model.reconstruct(X, modality="sc", mask=masks)
        result[:, mask] = decoded[:, mask]
    diagonal = np.arange(n_regions)
    for i, scan in enumerate(truth):
        if scan is not None:
            result[i, diagonal, diagonal] = scan[diagonal, diagonal]
    return result
