"""How far embeddings of regions tell networks apart, beside what is simple; and tests.

Shape letters: n scans, R regions, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score
from sklearn.utils import check_random_state

from bsym_sklearn.analysis.networks import (
    check_networks,
    classify_networks,
    cluster_networks,
)
from bsym_sklearn.analysis.resampling import (
    PermutationTest,
    Seed,
    permutation_p_value,
    permutation_test,
)
from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.functional import FMRIInput, connectivity_profiles

METHODS = ("majority", "logistic", "knn", "kmeans")
MEASURES = ("accuracy", "ari")


def connectivity_rows(X: Any, *, average: bool = True) -> np.ndarray:
    r"""Return each region's Fisher-z correlations with all regions.

    The floor that an embedding has to beat, and what the spatial stream of the model
    reads: :math:`\mathrm{artanh}\, r`, zero for a region with itself.

    Parameters
    ----------
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.
    average : bool, default=True
        Average over the scans.

    Returns
    -------
    ndarray of shape (R, R) or (n, R, R)
        float32, in [-3.8, 3.8].

    Raises
    ------
    BrainDataError
        If a scan has no fMRI.

    Examples
    --------
    >>> from bsym_sklearn.data import make_cohort
    >>> connectivity_rows(make_cohort(4, n_regions=5, n_timepoints=30).data).shape
    (5, 5)
    """
    cohort = check_cohort(X, caller="connectivity_rows", constant_regions="mask")
    rows = np.zeros((len(cohort), cohort.n_regions, cohort.n_regions), np.float32)
    for i, recording in enumerate(cohort.fmri):
        if recording is None:
            raise BrainDataError(
                "connectivity_rows needs 'fmri' of every scan. Got none, first in scan "
                f"{i}. Leave the row out."
            )
        series = torch.from_numpy(recording.read(np.float64)).unsqueeze(0)
        scale = series.std(1, keepdim=True)  # small units are not constant regions
        series = (series - series.mean(1, keepdim=True)) / scale.where(scale > 0, 1)
        rows[i] = connectivity_profiles(FMRIInput(series))[0].numpy()
    return rows.mean(0, dtype=np.float64).astype(np.float32) if average else rows


def network_scores(
    embeddings: Mapping[str, ArrayLike],
    networks: ArrayLike,
    *,
    methods: Sequence[str] = METHODS,
    n_folds: int = 5,
    n_repeats: int = 1,
    n_seeds: int = 10,
    groups: ArrayLike | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Score several embeddings of the same regions, each by several methods.

    Parameters
    ----------
    embeddings : mapping of str to array-like of shape (R, D) or (n, R, D)
        By name: model, connectivity, coordinates, ... The folds are the same for all
        of one shape.
    networks : array-like of str of shape (R,)
        Network of each region. Regions whose entry is None or NaN are left out.
    methods : sequence of {"majority", "logistic", "knn", "kmeans"}
        Default all: the largest network, :func:`classify_networks` by either classifier
        and :func:`cluster_networks`, of each scan if there are several.
    n_folds, n_repeats : int, default=5, 1
        Folds of a classifier, and times to draw them anew.
    n_seeds : int, default=10
        Repetitions of k-means; 1 for each scan if there are several.
    groups : array-like of shape (n,) or None, default=None
        Participant of each scan.
    random_state : int, default=0
        Draws folds and seeds.

    Returns
    -------
    DataFrame
        One row per embedding, method and part: ``embedding``, ``level`` ("group" or
        "scan"), ``method``, ``repeat``, ``part`` (fold, seed or scan), ``accuracy``,
        and ``ari``, of a classifier that of the whole repeat.

    Raises
    ------
    ValueError
        If there is no such method, or as in the functions that it calls.

    Examples
    --------
    >>> import numpy as np
    >>> networks = np.repeat(["Vis", "Default"], 10)
    >>> noise = np.random.default_rng(0).normal(size=(20, 3))
    >>> table = network_scores({"noise": noise}, networks, methods=["knn", "majority"])
    >>> table.groupby("method").size().to_dict()
    {'knn': 5, 'majority': 1}
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"`methods` must be among {METHODS}. Got {unknown}.")
    rows: list[dict[str, Any]] = []
    for name, given in embeddings.items():
        scans, names, known = check_networks(given, networks, "network_scores")
        level = "group" if np.ndim(given) == 2 else "scan"
        of = {"embedding": name, "level": level}
        for method in methods:
            row = of | {"method": method}
            if method == "majority":
                count = pd.Series(names[known]).value_counts(normalize=True)
                scores: list[Any] = [(0, 0, float(count.iloc[0]), 0.0)]
            elif method == "kmeans":
                each = n_seeds if level == "group" else 1
                scores = _cluster_scores(scans, networks, each, random_state)
            else:
                scores = [
                    (repeat, part, value, found.ari)
                    for repeat in range(n_repeats)
                    for found in [
                        classify_networks(
                            given,
                            networks,
                            classifier=method,
                            n_folds=n_folds,
                            groups=groups if level == "scan" else None,
                            random_state=random_state + repeat,
                        )
                    ]
                    for part, value in enumerate(found.accuracy)
                ]
            columns = ("repeat", "part", "accuracy", "ari")
            rows += [row | dict(zip(columns, s, strict=True)) for s in scores]
    return pd.DataFrame(rows)


def _cluster_scores(
    scans: np.ndarray, networks: ArrayLike, n_seeds: int, random_state: int
) -> list[tuple[int, int, float, float]]:
    """Return (0, part, accuracy, ARI) of k-means, for each seed of each scan."""
    found = [
        cluster_networks(scan, networks, n_seeds=n_seeds, random_state=random_state)
        for scan in scans
    ]
    accuracy = np.concatenate([clusters.accuracy for clusters in found])
    ari = np.concatenate([clusters.ari for clusters in found])
    return [
        (0, part, *both)
        for part, both in enumerate(zip(accuracy.tolist(), ari.tolist(), strict=True))
    ]


def network_test(
    predicted: ArrayLike,
    networks: ArrayLike,
    *,
    measure: str = "accuracy",
    coordinates: ArrayLike | None = None,
    n_permutations: int = 1000,
    random_state: Seed = 0,
) -> PermutationTest:
    """Test predicted networks, or clusters, against networks that mean nothing.

    Shuffled networks are scattered over the brain, which no embedding of a smooth
    signal resembles: nearly anything is better. With `coordinates`, the map of
    networks is turned as a whole instead (a spin test): each hemisphere at random
    about its centre, the other as its mirror image, and each region takes the network
    of the one that comes to lie at its place, one to one. That keeps the sizes and the
    contiguity of the networks. The predictions stay as they are.

    Parameters
    ----------
    predicted : array-like of shape (R,)
        Of :func:`~bsym_sklearn.analysis.networks.classify_networks`, or clusters.
    networks : array-like of str of shape (R,)
        Network of each region. Regions whose entry is None or NaN are left out.
    measure : {"accuracy", "ari"}, default="accuracy"
        Share of regions named correctly, or the adjusted Rand index, for which names
        do not matter.
    coordinates : array-like of shape (R, 3) or None, default=None
        In mm, MNI; the sign of x tells the hemispheres apart. None shuffles.
    n_permutations : int, default=1000
        Draws; p can be no smaller than 1 / (1 + n_permutations).
    random_state : int, RandomState or None, default=0
        Draws the shuffles or rotations.

    Returns
    -------
    PermutationTest

    Raises
    ------
    ValueError
        If there is no such measure or shapes do not fit.

    References
    ----------
    .. [1] Alexander-Bloch et al. (2018). On testing for spatial correspondence between
       maps of human brain structure and function. NeuroImage 178, 540-551.
    .. [2] Markello and Misic (2021). Comparing spatial null models for brain maps.
       NeuroImage 236, 118052. Regions are assigned one to one by the Hungarian method.

    Examples
    --------
    >>> networks = ["Vis", "Default"] * 10
    >>> network_test(networks, networks, n_permutations=99).p_value
    0.01
    """
    if measure not in MEASURES:
        raise ValueError(f"`measure` must be one of {MEASURES}. Got {measure!r}.")
    _, names, known = check_networks(
        np.zeros((len(np.asarray(predicted)), 1)), networks, "network_test"
    )
    guesses = np.asarray(predicted, dtype=object)[known].astype(str)
    truth = names[known].astype(str)

    def score(labels: np.ndarray) -> float:
        if measure == "ari":
            return float(adjusted_rand_score(labels, guesses))
        return float(np.mean(labels == guesses))

    if coordinates is None:
        return permutation_test(
            score, truth, n_permutations=n_permutations, random_state=random_state
        )
    places = np.asarray(coordinates, dtype=float)
    if places.shape != (len(names), 3) or not np.isfinite(places[known]).all():
        raise ValueError(
            "network_test needs finite coordinates (R, 3) of the regions with a "
            f"network. Got shape {places.shape} for {len(names)} networks. Leave out "
            "regions whose place is not known."
        )
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_permutations)
    turned = [score(truth[_spin(places[known], seed)]) for seed in seeds]
    true = score(truth)
    return PermutationTest(true, permutation_p_value(true, turned), np.array(turned))


def _spin(places: np.ndarray, seed: int) -> np.ndarray:
    """Return which region comes to lie at the place of each after a rotation."""
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    mirror = np.diag([-1.0, 1.0, 1.0])
    source = np.empty(len(places), dtype=int)
    left = places[:, 0] < 0
    for side, turn in ((left, rotation), (~left, mirror @ rotation @ mirror)):
        if not side.any():
            continue
        centred = places[side] - places[side].mean(axis=0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        sphere = centred / np.maximum(length, np.finfo(float).tiny)
        _, moved = linear_sum_assignment(cdist(sphere, sphere @ turn.T))
        source[side] = np.flatnonzero(side)[moved]
    return source
