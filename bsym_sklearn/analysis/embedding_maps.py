"""Where scans lie in the space of embeddings: maps of it, neighbours, drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist
from sklearn.base import TransformerMixin
from sklearn.decomposition import PCA
from sklearn.manifold import MDS, TSNE, Isomap
from sklearn.utils import check_scalar

from bsym_sklearn.analysis.resampling import Seed
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.layers import check_choice

METHODS = ("pca", "mds", "isomap", "tsne")
METRICS = ("euclidean", "cosine", "correlation")
PERPLEXITY, NEIGHBOURS = 30, 10  # of t-SNE and Isomap, or fewer for few scans


class Projection(NamedTuple):
    """Result of :func:`project`.

    Parameters
    ----------
    points : ndarray of shape (n, n_components)
        Places of the scans.
    explained_variance : ndarray of shape (n_components,) or None
        Share of the variance along each axis, of PCA; None of other methods, whose
        axes mean nothing.
    distance_correlation : float
        Pearson correlation of the distances between the scans in the map with those
        between their embeddings: 1 if the map does not distort.
    method : str
        How it was made.
    """

    points: np.ndarray
    explained_variance: np.ndarray | None
    distance_correlation: float
    method: str


def project(
    embeddings: ArrayLike,
    *,
    method: str = "pca",
    n_components: int = 2,
    random_state: Seed = 0,
) -> Projection:
    """Lay scans out on a plane so that near ones stay near.

    Parameters
    ----------
    embeddings : array-like of shape (n, n_features) or (n, R, D)
        From ``transform`` or ``transform_regions``, or any features.
    method : {"pca", "mds", "isomap", "tsne"}, default="pca"
        PCA keeps directions of much variance; MDS distances; Isomap distances along
        the data; t-SNE neighbours, but no distances between groups.
    n_components : int, default=2
        Axes, in [1, min(n - 1, n_features)].
    random_state : int, RandomState or None, default=0
        Seeds MDS and t-SNE.

    Returns
    -------
    Projection

    Raises
    ------
    BrainDataError
        If there are fewer than three scans or a value is not finite.
    ValueError
        If the method is unknown or there are too many axes.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> embeddings = rng.normal(size=(20, 5)) * [9, 3, 1, 0, 0]
    >>> map_ = project(embeddings)
    >>> map_.points.shape, bool(map_.explained_variance.sum() > 0.95)
    ((20, 2), True)
    >>> map_.distance_correlation > 0.95
    True
    """
    check_choice(method, METHODS, "method")
    values = _as_rows(embeddings, "project", at_least=3)
    most = min(len(values) - 1, values.shape[1])
    check_scalar(n_components, "n_components", int, min_val=1, max_val=most)
    model = _make_projection(method, n_components, len(values), random_state)
    points = model.fit_transform(values)
    distances = pdist(points), pdist(values)
    return Projection(
        points=points,
        explained_variance=getattr(model, "explained_variance_ratio_", None),
        distance_correlation=float(np.corrcoef(*distances)[0, 1]),
        method=method,
    )


def nearest_scans(
    embeddings: ArrayLike,
    k: int = 1,
    *,
    groups: ArrayLike | Mapping[str, ArrayLike] | pd.DataFrame | None = None,
    metric: str = "euclidean",
) -> pd.DataFrame:
    """List the nearest scans of each scan, and whether they are of the same group.

    Parameters
    ----------
    embeddings : array-like of shape (n, n_features) or (n, R, D)
        From ``transform`` or ``transform_regions``, or any features.
    k : int, default=1
        Neighbours of each scan, in [1, n - 1].
    groups : array-like of shape (n,), mapping of such, DataFrame or None, default=None
        Participant, condition or site of each scan; several by name.
    metric : {"euclidean", "cosine", "correlation"}, default="euclidean"
        Distance between embeddings.

    Returns
    -------
    DataFrame with n * k rows
        ``scan`` (row number), ``rank`` (1 is the nearest), ``neighbour`` (row number),
        ``distance``; per group ``same_<name>`` (bool) and ``chance_<name>``, the share
        of the other scans that are of the same group. An unnamed one is ``group``.

    Raises
    ------
    BrainDataError
        If there are fewer than two scans, a value is not finite, or groups are not one
        per scan.
    ValueError
        If `k` or `metric` cannot be used.

    Examples
    --------
    >>> near = nearest_scans([[0.0], [0.1], [5.0], [5.2]], groups=["a", "a", "b", "b"])
    >>> near["neighbour"].tolist(), near["same_group"].mean().item()
    ([1, 0, 3, 2], 1.0)
    >>> near["chance_group"].mean().round(2).item()
    0.33
    """
    check_choice(metric, METRICS, "metric")
    values = _as_rows(embeddings, "nearest_scans", at_least=2)
    n = len(values)
    check_scalar(k, "k", int, min_val=1, max_val=n - 1)
    distance = cdist(values, values, metric)
    np.fill_diagonal(distance, np.inf)
    neighbour = distance.argsort(axis=1, kind="stable")[:, :k].ravel()
    scan = np.repeat(np.arange(n), k)
    table = pd.DataFrame(
        {
            "scan": scan,
            "rank": np.tile(np.arange(1, k + 1), n),
            "neighbour": neighbour,
            "distance": distance[scan, neighbour],
        }
    )
    for name, labels in _named(groups, n).items():
        same = labels[:, None] == labels[None, :]
        table[f"same_{name}"] = same[scan, neighbour]
        table[f"chance_{name}"] = ((same.sum(axis=1) - 1) / (n - 1))[scan]
    return table


def drift(
    model: Any, X: Any, *, n_windows: int = 4, metric: str = "euclidean"
) -> pd.DataFrame:
    """Follow the embedding through consecutive windows of each scan.

    Each scan's series is cut into windows of the same length that do not overlap, and
    each window is embedded as if it were a scan (its connectome, where there is one,
    is that of the scan). Distances within a scan are to be seen beside those between
    scans: windows that are as far from each other as from those of other scans carry
    little that belongs to the scan.

    Parameters
    ----------
    model : estimator
        Fitted, with ``transform``.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`. Each has fMRI.
    n_windows : int, default=4
        Windows of a scan, at least 2.
    metric : {"euclidean", "cosine", "correlation"}, default="euclidean"
        Distance between embeddings.

    Returns
    -------
    DataFrame with n * n_windows rows
        ``scan`` (row number), ``window`` (from 0), ``start`` (time point),
        ``from_first`` and ``from_previous`` (distance to the first window of the scan
        and to the one before; NaN in the first), ``to_others`` (mean distance to the
        same window of all other scans; NaN if there is none).

    Raises
    ------
    BrainDataError
        If a scan has no fMRI or is too short.
    ValueError
        If `n_windows` or `metric` cannot be used.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=3, n_regions=5, n_timepoints=40).data
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
    >>> table = drift(model.fit(X), X, n_windows=2)
    >>> table[["scan", "window", "start"]].to_numpy().tolist()
    [[0, 0, 0], [0, 1, 20], [1, 0, 0], [1, 1, 20], [2, 0, 0], [2, 1, 20]]
    """
    check_choice(metric, METRICS, "metric")
    check_scalar(n_windows, "n_windows", int, min_val=2)
    cohort = check_cohort(X, caller="drift")
    lengths = cohort.n_timepoints // n_windows
    if (lengths < 2).any():
        i = int((lengths < 2).argmax())
        raise BrainDataError(
            f"drift needs {2 * n_windows} time points of fmri or more in each scan. "
            f"Got {cohort.n_timepoints[i]}, first in scan {i}. Leave it out or ask for "
            "fewer windows."
        )
    features = np.asarray(model.transform(_cut(cohort, lengths, n_windows)))
    places = features.reshape(len(cohort), n_windows, -1).astype(float)
    between = np.stack(
        [cdist(places[:, i], places[:, i], metric) for i in range(n_windows)], axis=1
    )
    within = np.stack([cdist(scan, scan, metric) for scan in places])
    previous = np.full(within.shape[:2], np.nan)
    previous[:, 1:] = np.diagonal(within, offset=1, axis1=1, axis2=2)
    first = within[:, 0].copy()
    first[:, 0] = np.nan
    others = np.full(first.shape, np.nan)
    if len(cohort) > 1:
        others = between.sum(axis=2) / (len(cohort) - 1)
    windows = np.tile(np.arange(n_windows), len(cohort))
    return pd.DataFrame(
        {
            "scan": np.repeat(np.arange(len(cohort)), n_windows),
            "window": windows,
            "start": windows * np.repeat(lengths, n_windows),
            "from_first": first.ravel(),
            "from_previous": previous.ravel(),
            "to_others": others.ravel(),
        }
    )


def _make_projection(
    method: str, n_components: int, n: int, random_state: Seed
) -> TransformerMixin:
    """Return the estimator that makes a map."""
    if method == "pca":
        return PCA(n_components, svd_solver="full")
    if method == "isomap":
        return Isomap(n_components=n_components, n_neighbors=min(NEIGHBOURS, n - 1))
    if method == "mds":
        return MDS(
            n_components, init="classical_mds", n_init=1, random_state=random_state
        )
    return TSNE(
        n_components,
        perplexity=min(PERPLEXITY, (n - 1) / 3),
        init="pca",
        method="exact" if n_components > 3 else "barnes_hut",
        random_state=random_state,
    )


def _as_rows(embeddings: ArrayLike, who: str, at_least: int) -> np.ndarray:
    """Return one row of finite numbers per scan."""
    values = np.asarray(embeddings, dtype=float)
    if values.ndim not in (2, 3) or len(values) < at_least:
        raise BrainDataError(
            f"{who} needs embeddings of shape (n, n_features) or (n, R, D) of "
            f"{at_least} scans or more. Got shape {values.shape}. Pass what "
            "`transform` returns."
        )
    values = values.reshape(len(values), -1)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise BrainDataError(
            f"{who} needs finite embeddings. Got NaN or infinity, first in scan "
            f"{int(bad.argmax())}. Leave it out."
        )
    return values


def _named(
    groups: ArrayLike | Mapping[str, ArrayLike] | pd.DataFrame | None, n: int
) -> dict[str, np.ndarray]:
    """Return labels of the scans by name."""
    if groups is None:
        return {}
    if isinstance(groups, Mapping | pd.DataFrame):
        found = {str(name): np.asarray(groups[name]) for name in groups}
    else:
        found = {"group": np.asarray(groups)}
    for name, labels in found.items():
        if labels.shape != (n,):
            raise BrainDataError(
                f"nearest_scans needs a {name!r} for each of {n} scans. Got shape "
                f"{labels.shape}. Take them from the same rows."
            )
    return found


def _cut(cohort: Cohort, lengths: np.ndarray, n_windows: int) -> pd.DataFrame:
    """Return the windows of all scans as rows of a cohort."""
    rows = np.repeat(np.arange(len(cohort)), n_windows)
    table = pd.DataFrame(index=range(len(rows)))
    if cohort.covariates is not None:
        table = cohort.covariates.iloc[rows].reset_index(drop=True)
    windows = []
    for i, length in enumerate(lengths):
        series = cohort.read_fmri(i, dtype=None)
        windows += [series[k * length : (k + 1) * length] for k in range(n_windows)]
    table["fmri"] = pd.Series(windows, dtype=object)
    if "sc" in cohort.modalities:
        connectomes = [
            None if sc is None else cohort.read_sc(i, dtype=None)
            for i, sc in enumerate(cohort.sc)
        ]
        table["sc"] = pd.Series([connectomes[i] for i in rows], dtype=object)
    if cohort.regions is not None:
        table.attrs["regions"] = cohort.regions
    return table
