"""Whether embeddings of regions tell the canonical networks of the brain apart.

No embedding here was trained with networks. A classifier that is, is tested on regions
that it has not seen, and for embeddings of single scans on participants that it has
not seen either. Shape letters: n scans, R regions, D channels, N networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state

Seed = int | np.random.RandomState | None
Rows = tuple[np.ndarray, np.ndarray]  # of the training and the test part

CLASSIFIERS = ("logistic", "knn")
MAX_CHANNELS = 64  # a classifier sees the leading components of more
N_INNER = 4  # folds that choose a classifier's parameters
GRIDS: dict[str, dict[str, list[Any]]] = {
    "logistic": {"C": [0.3, 3.0, 30.0, 300.0]},
    "knn": {"n_neighbors": [1, 3, 5, 9, 15], "metric": ["euclidean", "cosine"]},
}
N_STARTS = 10  # of k-means for each seed


class NetworkScores(NamedTuple):
    """Result of :func:`classify_networks`.

    Parameters
    ----------
    accuracy : ndarray of shape (n_folds,)
        Share of the tested regions (of each test scan) that were named correctly.
    ari : float
        Adjusted Rand index between `predicted` and the true networks.
    confusion : DataFrame of shape (N, N)
        Counts of tested regions (of each test scan); rows are true, columns predicted.
    predicted : ndarray of str objects of shape (R,)
        Most probable network of each region when it was tested, averaged over the
        scans; None for regions without a network.
    probability : DataFrame of shape (R, N)
        Of each network; NaN for regions without a network.
    misclassified : DataFrame
        ``region`` (number), ``label``, ``true``, ``predicted`` and ``probability`` (of
        the predicted network) of every region that is not named correctly, the surest
        first.
    chance : float
        Accuracy of always naming the largest network.
    """

    accuracy: np.ndarray
    ari: float
    confusion: pd.DataFrame
    predicted: np.ndarray
    probability: pd.DataFrame
    misclassified: pd.DataFrame
    chance: float


class NetworkClusters(NamedTuple):
    """Result of :func:`cluster_networks`.

    Parameters
    ----------
    labels : ndarray of int of shape (n_seeds, R)
        Cluster of each region; -1 for regions without a network.
    named : ndarray of str objects of shape (n_seeds, R)
        The network matched to each region's cluster; None for regions without a
        network or of a cluster to which none was left.
    ari : ndarray of shape (n_seeds,)
        Adjusted Rand index against the networks: 1 if equal, 0 on average by chance.
    accuracy : ndarray of shape (n_seeds,)
        Share of regions whose cluster is matched to their network, under the best
        one-to-one matching.
    """

    labels: np.ndarray
    named: np.ndarray
    ari: np.ndarray
    accuracy: np.ndarray


def classify_networks(
    embeddings: ArrayLike,
    networks: ArrayLike,
    *,
    classifier: str = "logistic",
    n_folds: int = 5,
    groups: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    random_state: Seed = 0,
) -> NetworkScores:
    """Name the network of regions that the classifier has not seen.

    Folds are over regions, each network alike in all. Embeddings of several scans are
    divided by participant at the same time: the classifier of a fold learns from the
    training regions of the training participants and is tested on the test regions of
    the test participants. Its parameters are chosen by folds of the same kind inside
    the training part. Each scan's embeddings are first centred over its regions and
    divided by their root mean square, for which no network is needed.

    Parameters
    ----------
    embeddings : array-like of shape (R, D) or (n, R, D)
        Of regions, or of the regions of each scan.
    networks : array-like of str of shape (R,)
        Network of each region. Regions whose entry is None or NaN are left out.
    classifier : {"logistic", "knn"}, default="logistic"
        Multinomial logistic regression or nearest neighbours, on the first 64
        principal components (of the training part) of wider embeddings.
    n_folds : int, default=5
        At least 2, at most the regions of the smallest network.
    groups : array-like of shape (n,) or None, default=None
        Participant of each scan. None takes every scan as its own.
    labels : sequence of str of shape (R,) or None, default=None
        Names of the regions; numbers if None.
    random_state : int, RandomState or None, default=0
        Draws the folds.

    Returns
    -------
    NetworkScores

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or there are fewer participants or
        regions of a network than folds.

    References
    ----------
    .. [1] Yeo et al. (2011). The organization of the human cerebral cortex estimated by
       intrinsic functional connectivity. J. Neurophysiol. 106, 1125-1165.

    Examples
    --------
    >>> import numpy as np
    >>> networks = np.repeat(["Vis", "Default"], 10)
    >>> noise = np.random.default_rng(0).normal(size=(20, 3))
    >>> scores = classify_networks(noise + 9 * (networks == "Vis")[:, None], networks)
    >>> float(scores.accuracy.mean()), scores.chance
    (1.0, 0.5)
    """
    if classifier not in CLASSIFIERS:
        raise ValueError(
            f"`classifier` must be one of {CLASSIFIERS}. Got {classifier!r}."
        )
    scans, names, known = check_networks(embeddings, networks, "classify_networks")
    truth = names[known].astype(str)
    people = _people(scans, groups)
    rng = check_random_state(random_state)
    n_regions = len(truth)
    x = _centred(scans[:, known]).reshape(-1, scans.shape[2])
    region = np.tile(np.arange(n_regions), len(scans))
    person = np.repeat(people, n_regions)
    y = truth[region]
    classes = np.unique(truth)
    probability = np.full((len(x), len(classes)), np.nan)
    accuracy = []
    for train, test in _folds(region, person, y, n_folds, rng):
        inner = _inner_folds(region[train], person[train], y[train], rng)
        model = _tuned(classifier, x[train], inner).fit(x[train], y[train])
        probability[test] = model.predict_proba(x[test])
        accuracy.append(np.mean(classes[probability[test].argmax(1)] == y[test]))
    tested = ~np.isnan(probability[:, 0])
    guesses = classes[probability[tested].argmax(1)]
    mean = np.full((len(names), len(classes)), np.nan)
    mean[known] = np.nanmean(probability.reshape(len(scans), n_regions, -1), axis=0)
    predicted = np.full(len(names), None, dtype=object)
    predicted[known] = classes[mean[known].argmax(1)]
    return NetworkScores(
        np.array(accuracy),
        float(adjusted_rand_score(truth, predicted[known].astype(str))),
        pd.crosstab(
            pd.Categorical(y[tested], classes),
            pd.Categorical(guesses, classes),
            rownames=["true"],
            colnames=["predicted"],
            dropna=False,
        ),
        predicted,
        pd.DataFrame(mean, columns=classes),
        _mistakes(names, predicted, mean, labels),
        float(np.unique(truth, return_counts=True)[1].max() / n_regions),
    )


def cluster_networks(
    embeddings: ArrayLike,
    networks: ArrayLike,
    *,
    n_clusters: int | None = None,
    n_seeds: int = 10,
    random_state: Seed = 0,
) -> NetworkClusters:
    """Cluster regions without any label, then compare with their networks.

    K-means on the centred embeddings, from several seeds of ten starts each.

    Parameters
    ----------
    embeddings : array-like of shape (R, D)
        Of regions.
    networks : array-like of str of shape (R,)
        Network of each region. Regions whose entry is None or NaN are left out.
    n_clusters : int or None, default=None
        None takes as many as there are networks.
    n_seeds : int, default=10
        Repetitions.
    random_state : int, RandomState or None, default=0
        Draws the seeds.

    Returns
    -------
    NetworkClusters

    Raises
    ------
    ValueError
        If shapes do not fit or values are not finite.

    References
    ----------
    .. [1] Hubert and Arabie (1985). Comparing partitions. J. Classification 2, 193-218.
    .. [2] Kuhn (1955). The Hungarian method for the assignment problem. Naval Research
       Logistics Quarterly 2, 83-97.

    Examples
    --------
    >>> import numpy as np
    >>> networks = ["Vis", "Vis", "Default", "Default"]
    >>> clusters = cluster_networks([[0.0], [0.1], [1.0], [1.1]], networks, n_seeds=2)
    >>> clusters.ari, clusters.accuracy
    (array([1., 1.]), array([1., 1.]))
    """
    scans, names, known = check_networks(embeddings, networks, "cluster_networks")
    if len(scans) > 1:
        raise ValueError(
            "cluster_networks needs the embeddings of one scan or of a group, (R, D). "
            f"Got shape {scans.shape}. Average over the scans, or pass them in turn."
        )
    truth = names[known].astype(str)
    x = _centred(scans[:, known])[0]
    k = len(np.unique(truth)) if n_clusters is None else n_clusters
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_seeds)
    labels = np.full((n_seeds, len(names)), -1)
    named = np.full(labels.shape, None, dtype=object)
    for i, seed in enumerate(seeds):
        labels[i, known] = KMeans(k, n_init=N_STARTS, random_state=seed).fit_predict(x)
        named[i, known] = _match(labels[i, known], truth)
    return NetworkClusters(
        labels,
        named,
        np.array([adjusted_rand_score(truth, row) for row in labels[:, known]]),
        (named[:, known] == truth).mean(1),
    )


def check_networks(
    embeddings: ArrayLike, networks: ArrayLike, who: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check embeddings and the networks of their regions.

    Parameters
    ----------
    embeddings : array-like of shape (R, D) or (n, R, D)
        Finite where a region has a network.
    networks : array-like of shape (R,)
        None or NaN where a region has none.
    who : str
        Caller, for messages.

    Returns
    -------
    embeddings : ndarray of shape (n, R, D)
        n is 1 if there was no such axis.
    networks : ndarray of objects of shape (R,)
        As given.
    known : ndarray of bool of shape (R,)
        Regions with a network.

    Raises
    ------
    ValueError
        If they do not fit together, or there are fewer than two networks.

    Examples
    --------
    >>> check_networks([[1.0], [2.0], [3.0]], ["a", "b", None], "me")[2]
    array([ True,  True, False])
    """
    values = np.asarray(embeddings, dtype=float)
    names = np.asarray(networks, dtype=object)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or names.shape != values.shape[1:2]:
        raise ValueError(
            f"{who} needs embeddings of shape (R, D) or (n, R, D) and a network for "
            f"each of the R regions. Got {np.shape(embeddings)} and {names.shape}. "
            "Select the same regions in both."
        )
    known = ~np.asarray(pd.isna(names), dtype=bool)
    finite = np.isfinite(values[:, known]).all(axis=(1, 2))
    if not finite.all():
        raise ValueError(
            f"{who} needs finite embeddings. Got NaN or infinity, first in scan "
            f"{int(finite.argmin())}. Leave such scans out."
        )
    if len(set(names[known])) < 2:
        raise ValueError(
            f"{who} needs regions of at least two networks. Got "
            f"{sorted(set(names[known]))}. Pass a network for each region."
        )
    return values, names, known


def _people(scans: np.ndarray, groups: ArrayLike | None) -> np.ndarray:
    """Return a number for the participant of each scan."""
    given = np.arange(len(scans)) if groups is None else np.asarray(groups)
    if given.shape != (len(scans),):
        raise ValueError(
            "classify_networks needs the participant of each scan in `groups`. Got "
            f"{given.shape} for {len(scans)} scans. Pass one entry per scan."
        )
    return np.unique(given.astype(str), return_inverse=True)[1]


def _centred(scans: np.ndarray) -> np.ndarray:
    """Centre each scan's embeddings over its regions; give them one size."""
    centred = scans - scans.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=2, keepdims=True).mean(axis=1, keepdims=True))
    return np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)


def _folds(
    region: np.ndarray,
    person: np.ndarray,
    y: np.ndarray,
    n_folds: int,
    rng: np.random.RandomState,
) -> Iterator[Rows]:
    """Yield rows to train and to test on, apart in regions and in participants."""
    regions, first = np.unique(region, return_index=True)
    counts = np.unique(y[first], return_counts=True)[1]
    people = np.unique(person)
    too_few = min(counts.min(), len(people) if len(people) > 1 else n_folds)
    if too_few < n_folds or n_folds < 2:
        raise ValueError(
            "classify_networks needs at least two folds and, for each, a region of "
            f"every network and a participant. Got {n_folds} folds, {counts.min()} "
            f"regions in the smallest network and {len(people)} participants. Use "
            "fewer folds, or larger networks."
        )
    fold_of_person = np.full(people.max() + 1, -1)
    fold_of_person[rng.permutation(people)] = np.arange(len(people)) % n_folds
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=rng)
    for k, (_, held_out) in enumerate(splitter.split(first, y[first])):
        other_regions = np.isin(region, regions[held_out])
        if len(people) == 1:
            yield np.flatnonzero(~other_regions), np.flatnonzero(other_regions)
            continue
        other_people = fold_of_person[person] == k
        yield (
            np.flatnonzero(~other_regions & ~other_people),
            np.flatnonzero(other_regions & other_people),
        )


def _inner_folds(
    region: np.ndarray, person: np.ndarray, y: np.ndarray, rng: np.random.RandomState
) -> list[Rows]:
    """Return the folds that choose parameters, fewer where there is little."""
    _, first = np.unique(region, return_index=True)
    n_folds = min(N_INNER, np.unique(y[first], return_counts=True)[1].min())
    n_people = len(np.unique(person))
    n_folds = min(n_folds, n_people) if n_people > 1 else n_folds
    return list(_folds(region, person, y, max(int(n_folds), 2), rng))


def _tuned(classifier: str, x: np.ndarray, inner: list[Rows]) -> GridSearchCV:
    """Return a classifier whose parameters the inner folds choose."""
    smallest = min(len(train) for train, _ in inner)
    model: Any = LogisticRegression(max_iter=1000)
    grid = GRIDS[classifier]
    if classifier == "knn":
        model = KNeighborsClassifier()
        possible = [k for k in grid["n_neighbors"] if k <= smallest]
        grid = grid | {"n_neighbors": possible}
    if x.shape[1] > MAX_CHANNELS:
        n_components = min(MAX_CHANNELS, smallest)
        model = make_pipeline(PCA(n_components, svd_solver="covariance_eigh"), model)
        step = model.steps[-1][0]
        grid = {f"{step}__{name}": values for name, values in grid.items()}
    return GridSearchCV(model, grid, cv=inner)


def _match(clusters: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the network of each region's cluster, one to one, None where none left."""
    counts = pd.crosstab(clusters, truth)
    rows, columns = linear_sum_assignment(-counts.to_numpy())
    names = dict(zip(counts.index[rows], counts.columns[columns], strict=True))
    return np.array([names.get(cluster) for cluster in clusters], dtype=object)


def _mistakes(
    names: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    labels: Sequence[str] | None,
) -> pd.DataFrame:
    """Return the regions that are not named correctly, the surest first."""
    texts = list(map(str, range(len(names)) if labels is None else labels))
    if len(texts) != len(names):
        raise ValueError(
            f"`labels` needs a name per region. Got {len(texts)} for {len(names)}."
        )
    wrong = np.flatnonzero(
        [p is not None and p != str(t) for p, t in zip(predicted, names, strict=True)]
    )
    table = pd.DataFrame(
        {
            "region": wrong,
            "label": [texts[i] for i in wrong],
            "true": names[wrong].astype(str),
            "predicted": predicted[wrong],
            "probability": probability[wrong].max(axis=1, initial=0.0),
        }
    )
    return table.sort_values("probability", ascending=False, ignore_index=True)
