"""t statistics of many cells at once, with signs flipped or labels exchanged.

The engine of :mod:`~bsym_sklearn.analysis.contrast`. Shape letters: n units (pairs or
participants), M cells of a map, P arrangements (of signs or labels).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components

CELLS_AT_ONCE = 2_000_000  # values of t in memory: 16 MB
CONSTANT = 1e-12  # a variance below this share of the mean square is rounding
TIE = 1e-9  # statistics that differ by less than this share are equal

Components = Callable[[np.ndarray], np.ndarray]


class MapTest(ABC):
    """A t test in each cell, and the arrangements of its units under no effect.

    Attributes
    ----------
    n_units : int
        Pairs, or participants of both groups.
    difference, low, high, effect_size : ndarray of shape (M,)
        Mean difference, its interval, and its size in standard deviations.
    """

    n_units: int
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    effect_size: np.ndarray
    n_free: int

    @abstractmethod
    def t(self, arrangements: np.ndarray) -> np.ndarray:
        """Return t of each arrangement; (P, M)."""

    @abstractmethod
    def n_possible(self) -> int:
        """Return how many arrangements there are."""

    @abstractmethod
    def enumerate(self) -> np.ndarray:
        """Return all arrangements (P, n), the true one first."""

    @abstractmethod
    def draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return the true arrangement and `n` random ones; (n + 1, n_units)."""

    def chunks(self, arrangements: np.ndarray) -> Iterator[np.ndarray]:
        """Yield t of some arrangements at a time."""
        step = max(1, CELLS_AT_ONCE // len(self.difference))
        for start in range(0, len(arrangements), step):
            yield self.t(arrangements[start : start + step])


class SignFlips(MapTest):
    r"""Paired: under no effect, a pair's difference has either sign.

    Size of the effect: Cohen's :math:`d_z = \bar d / s_d`.

    Parameters
    ----------
    differences : ndarray of shape (n, M)
        A - B of each pair.
    confidence : float
        Level of the intervals.

    Examples
    --------
    >>> test = SignFlips(np.array([[1.0], [2.0], [3.0]]), 0.95)
    >>> test.t(test.enumerate()).round(2).ravel()
    array([ 3.46,  0.  ,  0.46, -1.11])
    """

    def __init__(self, differences: np.ndarray, confidence: float) -> None:
        self.values = differences
        self.squares = (differences**2).sum(axis=0)
        self.n_units = len(differences)
        self.n_free = self.n_units - 1
        self.difference = differences.mean(axis=0)
        deviation = differences.std(axis=0, ddof=1)
        half = stats.t.ppf((1 + confidence) / 2, self.n_free)
        half = half * deviation / math.sqrt(self.n_units)
        self.low, self.high = self.difference - half, self.difference + half
        self.effect_size = _ratio(self.difference, deviation)

    def t(self, arrangements: np.ndarray) -> np.ndarray:
        """Return t with the signs of each arrangement."""
        n = self.n_units
        mean = arrangements @ self.values / n
        variance = (self.squares - n * mean**2) / self.n_free
        return _t(mean, variance / n, self.squares / n)

    def n_possible(self) -> int:
        """Return half of 2^n: a test of both sides does not tell all signs turned."""
        return 2 ** (self.n_units - 1)

    def enumerate(self) -> np.ndarray:
        """Return all signs, those of the first pair as they are."""
        rest = itertools.product((1.0, -1.0), repeat=self.n_units - 1)
        return np.array([(1.0, *signs) for signs in rest])

    def draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return the true signs and random ones."""
        signs = rng.choice((-1.0, 1.0), size=(n + 1, self.n_units))
        signs[0] = 1.0
        return signs


class LabelSwaps(MapTest):
    r"""Two groups: under no effect, anyone may be of either.

    Welch's t, so that groups of unequal size may also differ in variance [1]_. Size of
    the effect: Hedges' :math:`g = J (\bar a - \bar b) / s_p` with the pooled standard
    deviation and :math:`J = 1 - 3 / (4 (n_a + n_b) - 9)`.

    Parameters
    ----------
    a, b : ndarray of shape (n_a, M), (n_b, M)
        Values of the two groups.
    confidence : float
        Level of the intervals.

    References
    ----------
    .. [1] Chung and Romano (2013). Exact and asymptotically robust permutation tests.
       Annals of Statistics 41(2), 484-507.

    Examples
    --------
    >>> test = LabelSwaps(np.array([[1.0], [2.0]]), np.array([[5.0], [6.0]]), 0.95)
    >>> test.n_possible(), test.difference, test.t(test.enumerate())[0].round(2)
    (6, array([-4.]), array([-5.66]))
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, confidence: float) -> None:
        self.n_a, self.n_b = len(a), len(b)
        self.n_units = self.n_a + self.n_b
        self.n_free = self.n_units - 2
        self.difference = a.mean(axis=0) - b.mean(axis=0)
        self.values = np.concatenate([a, b])
        self.values = self.values - self.values.mean(axis=0)
        self.squares = self.values**2
        of_a, of_b = a.var(axis=0, ddof=1), b.var(axis=0, ddof=1)
        error = of_a / self.n_a + of_b / self.n_b
        free = _ratio(
            error**2,
            (of_a / self.n_a) ** 2 / (self.n_a - 1)
            + (of_b / self.n_b) ** 2 / (self.n_b - 1),
        )
        quantile = stats.t.ppf((1 + confidence) / 2, np.maximum(free, 1))
        half = quantile * np.sqrt(error)
        self.low, self.high = self.difference - half, self.difference + half
        pooled = ((self.n_a - 1) * of_a + (self.n_b - 1) * of_b) / self.n_free
        correction = 1 - 3 / (4 * self.n_units - 9)
        self.effect_size = correction * _ratio(self.difference, np.sqrt(pooled))

    def t(self, arrangements: np.ndarray) -> np.ndarray:
        """Return t with the group of each arrangement; 1 for those in the first."""
        total = self.squares.sum(axis=0)
        sum_a = arrangements @ self.values  # and of b the negative: they are centred
        squares_a = arrangements @ self.squares
        mean_a, mean_b = sum_a / self.n_a, -sum_a / self.n_b
        var_a = (squares_a / self.n_a - mean_a**2) / (self.n_a - 1)
        var_b = ((total - squares_a) / self.n_b - mean_b**2) / (self.n_b - 1)
        return _t(mean_a - mean_b, var_a + var_b, total / self.n_units)

    def n_possible(self) -> int:
        """Return how many groups of that size there are."""
        return math.comb(self.n_units, self.n_a)

    def enumerate(self) -> np.ndarray:
        """Return all groups of that size."""
        chosen = list(itertools.combinations(range(self.n_units), self.n_a))
        groups = np.zeros((len(chosen), self.n_units))
        np.put_along_axis(groups, np.array(chosen), 1.0, axis=1)
        return groups

    def draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        """Return the true groups and random ones."""
        groups = np.zeros((n + 1, self.n_units))
        groups[:, : self.n_a] = 1.0
        for row in groups[1:]:
            rng.shuffle(row)
        return groups


def p_uncorrected(test: MapTest, arrangements: np.ndarray) -> np.ndarray:
    """Return the share of the arrangements with as large a t, cell by cell.

    Parameters
    ----------
    test : MapTest
        With M cells.
    arrangements : ndarray of shape (P, n)
        The true one first.

    Returns
    -------
    ndarray of shape (M,)
        In [1 / P, 1].

    Examples
    --------
    >>> test = SignFlips(np.array([[1.0], [2.0], [3.0]]), 0.95)
    >>> p_uncorrected(test, test.enumerate())
    array([0.25])
    """
    least = np.abs(test.t(arrangements[:1])[0]) * (1 - TIE)
    count = sum((np.abs(t) >= least).sum(axis=0) for t in test.chunks(arrangements))
    return np.asarray(count) / len(arrangements)


def p_of_max(test: MapTest, arrangements: np.ndarray) -> np.ndarray:
    """Return p against the largest t of any cell: errs anywhere at its level.

    Parameters
    ----------
    test : MapTest
        With M cells.
    arrangements : ndarray of shape (P, n)
        The true one first.

    Returns
    -------
    ndarray of shape (M,)
        In [1 / P, 1].

    References
    ----------
    .. [1] Nichols and Holmes (2002). Nonparametric permutation tests for functional
       neuroimaging. Human Brain Mapping 15, 1-25.

    Examples
    --------
    >>> test = SignFlips(np.array([[1.0, 1.0], [2.0, 0.0], [3.0, -2.0]]), 0.95)
    >>> p_of_max(test, test.enumerate())
    array([0.25, 1. ])
    """
    largest = [np.abs(t).max(axis=1) for t in test.chunks(arrangements)]
    return _share_at_least(np.concatenate(largest), np.abs(test.t(arrangements[:1])[0]))


def p_of_clusters(
    test: MapTest, arrangements: np.ndarray, threshold: float, components: Components
) -> tuple[np.ndarray, np.ndarray]:
    """Return p of each cell's cluster against the heaviest, and the clusters.

    A cluster's mass is the sum of the absolute t in it; cells of different signs are
    never in one.

    Parameters
    ----------
    test : MapTest
        With M cells.
    arrangements : ndarray of shape (P, n)
        The true one first.
    threshold : float
        Cells with a larger absolute t are in clusters.
    components : callable
        Mask of cells (P, M) -> numbers (P, M) that cells of a row share if they are
        connected; see :func:`join_cells` and :func:`join_edges`.

    Returns
    -------
    p : ndarray of shape (M,)
        1 outside of clusters.
    clusters : ndarray of int of shape (M,)
        Numbers from 1, the heaviest first; 0 outside.

    Examples
    --------
    >>> test = SignFlips(np.array([[1.0, 2.0, 0.3], [1.1, 2.1, -0.2]]), 0.95)
    >>> from functools import partial
    >>> chain = partial(join_cells, links=(np.array([0, 1]), np.array([1, 2])))
    >>> p_of_clusters(test, test.enumerate(), 2.0, chain)
    (array([0.5, 0.5, 1. ]), array([1, 1, 0]))
    """
    heaviest = [
        _masses(t, threshold, components)[0].max(axis=1)
        for t in test.chunks(arrangements)
    ]
    true = test.t(arrangements[:1])
    mass, labels = (x[0] for x in _masses(true, threshold, components))
    sizes = np.unique(np.column_stack([-mass, labels])[labels > 0], axis=0)
    ranks = np.zeros(labels.max() + 1, dtype=int)
    ranks[sizes[:, 1].astype(int)] = np.arange(1, len(sizes) + 1)
    p = _share_at_least(np.concatenate(heaviest), mass)
    return np.where(labels > 0, p, 1.0), ranks[labels]


def join_cells(
    inside: np.ndarray, *, links: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Connect cells that are neighbours.

    Parameters
    ----------
    inside : ndarray of bool of shape (P, M)
        Cells of P maps.
    links : pair of ndarray of int of shape (n_links,)
        Cells that are neighbours.

    Returns
    -------
    ndarray of int of shape (P, M)
        Cells of a map have the same number if they are connected.

    Examples
    --------
    >>> chain = np.array([0, 1, 2]), np.array([1, 2, 3])
    >>> inside = np.array([[True, True, False, True]])
    >>> one, other, _, far = join_cells(inside, links=chain)[0]
    >>> bool(one == other), bool(one == far)
    (True, False)
    """
    rows, link = np.nonzero(inside[:, links[0]] & inside[:, links[1]])
    first = rows * inside.shape[1]
    found = _components(first + links[0][link], first + links[1][link], inside.size)
    return found.reshape(inside.shape)


def join_edges(
    inside: np.ndarray, *, ends: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Connect edges that share a region.

    Parameters
    ----------
    inside : ndarray of bool of shape (P, M)
        Edges of P maps.
    ends : pair of ndarray of int of shape (M,)
        The two regions of each edge.

    Returns
    -------
    ndarray of int of shape (P, M)
        Edges of a map have the same number if they are connected.

    References
    ----------
    .. [1] Zalesky, Fornito and Bullmore (2010). Network-based statistic: identifying
       differences in brain networks. NeuroImage 53(4), 1197-1207.

    Examples
    --------
    >>> ends = np.array([0, 1, 3]), np.array([1, 2, 4])
    >>> one, other, far = join_edges(np.ones((1, 3), bool), ends=ends)[0]
    >>> bool(one == other), bool(one == far)
    (True, False)
    """
    n_regions = 1 + int(max(ends[0].max(), ends[1].max()))
    rows, edge = np.nonzero(inside)
    first = n_regions * rows
    found = _components(
        first + ends[0][edge], first + ends[1][edge], n_regions * len(inside)
    )
    return found.reshape(len(inside), n_regions)[:, ends[0]]


def _masses(
    t: np.ndarray, threshold: float, components: Components
) -> tuple[np.ndarray, np.ndarray]:
    """Return each cell's mass and number of its cluster, 0 outside; (P, M) both."""
    labels, n_clusters = np.zeros(t.shape, dtype=int), 0
    for sign in (1, -1):
        inside = sign * t > threshold
        if inside.any():
            found, codes = np.unique(components(inside)[inside], return_inverse=True)
            labels[inside] = 1 + n_clusters + codes
            n_clusters += len(found)
    masses = np.bincount(labels.ravel(), np.abs(t).ravel())
    masses[0] = 0.0
    return masses[labels], labels


def _components(one: np.ndarray, other: np.ndarray, n_nodes: int) -> np.ndarray:
    """Return the connected component of each node of a graph."""
    graph = sparse.csr_array((np.ones(len(one)), (one, other)), (n_nodes, n_nodes))
    return np.asarray(connected_components(graph, directed=False)[1])


def _share_at_least(drawn: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the share of `drawn` that reaches each observed value."""
    below = np.searchsorted(np.sort(drawn), observed * (1 - TIE), side="left")
    return (len(drawn) - below) / len(drawn)


def _t(mean: np.ndarray, error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return mean / sqrt(error); 0 where nothing differs, infinite without spread."""
    error = np.where(error <= CONSTANT * scale, 0.0, error)
    return _ratio(np.where(mean**2 <= CONSTANT**2 * scale, 0.0, mean), np.sqrt(error))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return a ratio that is 0 for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above == 0, 0.0, above / below)
