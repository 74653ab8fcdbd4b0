"""Whether the maps of two conditions, or of two groups, differ, and where.

Maps are what other modules return per scan: values of regions (n, R), of blocks of
networks (n, N, N) or of edges (n, R, R), whatever they mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse, stats
from sklearn.utils import check_random_state, check_scalar

from bsym_sklearn.analysis.contrast_result import ALPHA, Contrast
from bsym_sklearn.analysis.map_tests import (
    Components,
    LabelSwaps,
    MapTest,
    SignFlips,
    join_cells,
    join_edges,
    p_of_clusters,
    p_of_max,
    p_uncorrected,
)
from bsym_sklearn.analysis.map_units import Groups, cells_to_test, units
from bsym_sklearn.analysis.resampling import Seed
from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.model.layers import check_choice

CORRECTIONS = ("max", "fdr", "cluster")


class GroupContrasts(NamedTuple):
    """Result of :func:`contrast_by_group`.

    Parameters
    ----------
    within : dict of str to Contrast
        A against B within each of the two subgroups, in the order of their names.
    interaction : Contrast
        Difference of the first subgroup minus that of the second.
    """

    within: dict[str, Contrast]
    interaction: Contrast


class Stability(NamedTuple):
    """Result of :func:`stability`.

    Parameters
    ----------
    correlation : ndarray of shape (n_contrasts, n_contrasts)
        Pearson, between the maps of differences.
    survival : ndarray of the shape of a map
        Share of the contrasts in which a cell survives the correction.
    same_sign : ndarray of the shape of a map
        Share of the contrasts whose difference has the sign of most of them, in
        [0.5, 1].
    """

    correlation: np.ndarray
    survival: np.ndarray
    same_sign: np.ndarray


def contrast(
    A: ArrayLike,
    B: ArrayLike,
    *,
    paired: bool = True,
    groups: Groups | None = None,
    n_permutations: int = 5000,
    correction: str = "max",
    adjacency: ArrayLike | sparse.sparray | None = None,
    cluster_p: float = 0.01,
    confidence: float = 0.95,
    random_state: Seed = 0,
) -> Contrast:
    """Test in each cell of a map whether two conditions or groups differ.

    Pairs: the signs of the differences are flipped. Groups: labels are exchanged.
    Every arrangement is counted where `n_permutations` allows it, so that 9 pairs have
    256 (both sides of a test count together) and p is at least 0.004; else random ones
    are drawn. Tests have two sides.

    Parameters
    ----------
    A, B : array-like of shape (n_a, R), (n_a, R, R) and likewise of n_b scans
        Maps. A symmetric map is tested once per edge. Cells that are the same in all
        scans, or NaN in all of them, are not tested.
    paired : bool, default=True
        Whether the rows of A and B are of the same participants. False tests two
        groups of different people.
    groups : pair of array-like of shape (n_a,) and (n_b,), or None, default=None
        Participants of the rows of A and of B. The scans of a participant are
        averaged, since they are no further sample; pairs are matched by participant.
        None takes every row as a participant and row i of A and B as a pair.
    n_permutations : int, default=5000
        Most arrangements to count, beside the true one.
    correction : {"max", "fdr", "cluster"}, default="max"
        For the number of cells. "max" controls the chance of any false finding, by the
        largest t of a map [1]_; "fdr" the share of the findings that are false [2]_;
        "cluster" the chance of any false cluster, by the sum of the absolute t in it
        [3]_: what survives is a cluster, not each cell in it.
    adjacency : array-like or sparse array of shape (R, R) or (R * R, R * R), or None
        For clusters, which regions are neighbours (not zero). Edges are, if they share
        one region and the others are neighbours [4]_; the large form says directly
        which cells of a square map are. None joins edges that share a region [3]_; maps
        of regions need it.
    cluster_p : float, default=0.01
        Cells enter a cluster if their uncorrected p, from Student's distribution, is
        below, in (0, 1). Chosen beforehand, not by what it gives.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    random_state : int, RandomState or None, default=0
        Draws the arrangements.

    Returns
    -------
    Contrast

    Raises
    ------
    BrainDataError
        If maps have different shapes, or a value is missing in some scans.
    ValueError
        If there are fewer than two pairs or people of a group, participants do not
        match, or a parameter is out of its range.

    Warns
    -----
    BrainSymphonyWarning
        If there are too few arrangements for any p below 0.05.

    References
    ----------
    .. [1] Nichols and Holmes (2002). Nonparametric permutation tests for functional
       neuroimaging. Human Brain Mapping 15, 1-25.
    .. [2] Benjamini and Hochberg (1995). Controlling the false discovery rate. Journal
       of the Royal Statistical Society B 57(1), 289-300.
    .. [3] Zalesky, Fornito and Bullmore (2010). Network-based statistic. NeuroImage
       53(4), 1197-1207; with the mass of a cluster instead of its number of edges.
    .. [4] Zalesky et al. (2012). Connectivity differences in brain networks. NeuroImage
       60(2), 1055-1062.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> before = rng.normal(size=(9, 5))
    >>> after = before + rng.normal(scale=0.5, size=(9, 5)) + [0, 0, 0, 0, 2]
    >>> found = contrast(after, before)
    >>> found.table(list("abcde")).loc[0, ["region", "p_corrected"]].to_dict()
    {'region': 'e', 'p_corrected': 0.00390625}
    >>> found.surviving()
    array([False, False, False, False,  True])
    """
    check_choice(correction, CORRECTIONS, "correction")
    for name, value in (("confidence", confidence), ("cluster_p", cluster_p)):
        check_scalar(
            value, name, float, min_val=0, max_val=1, include_boundaries="neither"
        )
    check_scalar(n_permutations, "n_permutations", int, min_val=1)
    a, b = units(np.asarray(A, dtype=float), np.asarray(B, dtype=float), groups, paired)
    tested, is_symmetric = cells_to_test(a, b)
    a_cells, b_cells = a[:, tested], b[:, tested]
    test: MapTest
    if paired:
        test = SignFlips(a_cells - b_cells, confidence)
    else:
        test = LabelSwaps(a_cells, b_cells, confidence)
    is_exact = test.n_possible() <= n_permutations
    rng = check_random_state(random_state)
    arrangements = test.enumerate() if is_exact else test.draw(n_permutations, rng)
    _warn_of_few(len(arrangements), test.n_units)
    p = p_uncorrected(test, arrangements)
    clusters = None
    if correction == "max":
        corrected = p_of_max(test, arrangements)
    elif correction == "fdr":
        corrected = stats.false_discovery_control(p)
    else:
        threshold = float(stats.t.isf(cluster_p / 2, test.n_free))
        corrected, clusters = p_of_clusters(
            test,
            arrangements,
            threshold,
            _components(adjacency, tested, is_symmetric),
        )

    def as_map(values: np.ndarray, fill: float = np.nan) -> np.ndarray:
        whole = np.full(a.shape[1:], fill, dtype=values.dtype)
        whole[tested] = values
        if is_symmetric:
            whole.T[tested] = values
        return whole

    return Contrast(
        difference=as_map(test.difference),
        t=as_map(test.t(arrangements[:1])[0]),
        effect_size=as_map(test.effect_size),
        low=as_map(test.low),
        high=as_map(test.high),
        p=as_map(p),
        p_corrected=as_map(corrected),
        clusters=None if clusters is None else as_map(clusters, 0),
        n_units=(len(a),) if paired else (len(a), len(b)),
        correction=correction,
        n_arrangements=len(arrangements),
        is_exact=is_exact,
        is_symmetric=is_symmetric,
    )


def contrast_by_group(
    A: ArrayLike,
    B: ArrayLike,
    subgroups: ArrayLike,
    *,
    n_permutations: int = 5000,
    correction: str = "max",
    adjacency: ArrayLike | sparse.sparray | None = None,
    cluster_p: float = 0.01,
    confidence: float = 0.95,
    random_state: Seed = 0,
) -> GroupContrasts:
    """Contrast two conditions within each of two subgroups, and between them.

    That a difference survives in one subgroup only does not make the subgroups
    different: the interaction says whether they are.

    Parameters
    ----------
    A, B : array-like of shape (n, R) or (n, R, R)
        Maps of n pairs; row i of both is of one participant.
    subgroups : array-like of shape (n,)
        Subgroup of each pair, of which there are two (such as a high and a low score).
    n_permutations, correction, adjacency, cluster_p, confidence, random_state
        See :func:`contrast`.

    Returns
    -------
    GroupContrasts

    Raises
    ------
    ValueError
        If there are not two subgroups, of two pairs or more each.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> high = np.repeat([True, False], 9)
    >>> before = rng.normal(size=(18, 3))
    >>> after = before + rng.normal(scale=0.5, size=(18, 3)) + 2 * high[:, None]
    >>> found = contrast_by_group(after, before, np.where(high, "high", "low"))
    >>> {name: one.surviving().sum().item() for name, one in found.within.items()}
    {'high': 3, 'low': 0}
    >>> found.interaction.surviving()
    array([ True,  True,  True])
    """
    a, b = np.asarray(A, dtype=float), np.asarray(B, dtype=float)
    groups = np.asarray(subgroups)
    names = np.unique(groups)
    if a.shape != b.shape or groups.shape != (len(a),) or len(names) != 2:
        raise ValueError(
            "contrast_by_group needs pairs of maps, each in one of two subgroups. Got "
            f"shapes {a.shape} and {b.shape}, and {groups.shape} subgroups, of which "
            f"{len(names)} are different. Compare two subgroups at a time."
        )
    test = partial(
        contrast,
        n_permutations=n_permutations,
        correction=correction,
        adjacency=adjacency,
        cluster_p=cluster_p,
        confidence=confidence,
        random_state=random_state,
    )
    parts = [groups == name for name in names]
    within = {
        str(name): test(a[part], b[part])
        for name, part in zip(names, parts, strict=True)
    }
    changes = a - b
    return GroupContrasts(within, test(*(changes[p] for p in parts), paired=False))


def stability(contrasts: Sequence[Contrast], *, alpha: float = ALPHA) -> Stability:
    """Return how far the same contrast agrees between models that differ in the seed.

    Parameters
    ----------
    contrasts : sequence of Contrast
        Two or more, of maps of the same shape.
    alpha : float, default=0.05
        Level below which the corrected p of a cell survives.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If there are fewer than two, or their shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> before, change = rng.normal(size=(9, 4)), np.array([0, 0, 1, 2])
    >>> seeds = [before + change + rng.normal(size=(9, 4)) / 4 for _ in range(3)]
    >>> found = stability([contrast(after, before) for after in seeds])
    >>> found.survival.tolist(), bool((found.correlation > 0.9).all())
    ([0.0, 0.0, 1.0, 1.0], True)
    """
    shapes = {one.difference.shape for one in contrasts}
    if len(contrasts) < 2 or len(shapes) != 1:
        raise ValueError(
            "stability needs two contrasts or more of maps of one shape. Got "
            f"{len(contrasts)} of the shapes {sorted(shapes)}. Use the same regions."
        )
    differences = np.stack([one.difference for one in contrasts])
    tested = np.all([~np.isnan(one.p) for one in contrasts], axis=0)
    once = np.triu(tested) if contrasts[0].is_symmetric else tested
    survival = np.mean([one.surviving(alpha) for one in contrasts], axis=0)
    positive = (differences > 0).mean(axis=0)
    return Stability(
        np.corrcoef(differences[:, once]),
        np.where(tested, survival, np.nan),
        np.where(tested, np.maximum(positive, 1 - positive), np.nan),
    )


def _components(
    adjacency: ArrayLike | sparse.sparray | None,
    tested: np.ndarray,
    is_symmetric: bool,
) -> Components:
    """Return what connects the tested cells of a map."""
    is_square = tested.ndim == 2
    if adjacency is None and is_square:
        rows, columns = np.nonzero(tested)
        return partial(join_edges, ends=(rows, columns))
    near = sparse.csr_array((0, 0) if adjacency is None else adjacency)
    n_regions, n_cells = len(tested), tested.size
    if near.shape not in {(n_regions, n_regions), (n_cells, n_cells)}:
        raise ValueError(
            f"Clusters need an `adjacency` of shape {(n_regions, n_regions)} between "
            f"regions or {(n_cells, n_cells)} between cells. Got "
            f"{None if adjacency is None else near.shape}. Say which are neighbours."
        )
    if is_square and near.shape[0] == n_regions:
        one = sparse.eye_array(n_regions)
        near = (sparse.kron(one, near) + sparse.kron(near, one)).tocsr()
    number = np.full(tested.shape, -1)  # of each cell among those tested
    number[tested] = np.arange(tested.sum())
    if is_symmetric:
        number.T[tested] = np.arange(tested.sum())
    first, second = (number.ravel()[cell] for cell in near.nonzero())
    both = (first >= 0) & (second >= 0)
    return partial(join_cells, links=(first[both], second[both]))


def _warn_of_few(n_arrangements: int, n_units: int) -> None:
    """Warn if no p can be below 0.05."""
    if 1 / n_arrangements >= ALPHA:
        warnings.warn(
            f"contrast needs more than 20 arrangements for any p below {ALPHA}. Got "
            f"{n_arrangements} of {n_units} pairs or people. Report the intervals.",
            BrainSymphonyWarning,
            stacklevel=3,
        )
