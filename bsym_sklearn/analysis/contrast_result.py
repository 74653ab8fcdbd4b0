"""What a contrast found: maps of differences, tests and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Contrast:
    """Result of a contrast; every array has the shape of one map.

    Made by :func:`~bsym_sklearn.analysis.contrast.contrast`. NaN marks cells that are
    not tested: those that are the same in all scans, such as the diagonal of
    correlations, or NaN in all of them.

    Attributes
    ----------
    difference : ndarray
        Mean of A minus mean of B, in the units of the maps.
    t : ndarray
        Student's t of the pairs, Welch's t of two groups.
    effect_size : ndarray
        Cohen's dz of pairs, Hedges' g of groups.
    low, high : ndarray
        Interval of the difference, of each cell on its own.
    p, p_corrected : ndarray
        Of both sides, in (0, 1]; for one cell, and over all of them.
    clusters : ndarray of int or None
        Number of each cell's cluster from 1, the heaviest first, 0 for none; None
        unless the correction is by cluster.
    n_units : tuple of int
        Pairs; or participants of A and of B.
    correction : str
        "max", "fdr" or "cluster".
    n_arrangements : int
        Sign flips or labellings that p counts, the true one included. p is at least
        one over this.
    is_exact : bool
        Whether these are all that there are.
    is_symmetric : bool
        Whether each edge was tested once, since it is the same in both directions.
    """

    difference: np.ndarray
    t: np.ndarray
    effect_size: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    p_corrected: np.ndarray
    clusters: np.ndarray | None
    n_units: tuple[int, ...]
    correction: str
    n_arrangements: int
    is_exact: bool
    is_symmetric: bool

    @property
    def n_tested(self) -> int:
        """Number of cells tested; an edge of a symmetric map counts once."""
        return len(self._cells()[0])

    def surviving(self, alpha: float = ALPHA) -> np.ndarray:
        """Return the map of cells whose corrected p is below a level.

        Parameters
        ----------
        alpha : float, default=0.05
            The level.

        Returns
        -------
        ndarray of bool
            Of the shape of a map.
        """
        return self.p_corrected < alpha  # False where NaN

    def table(
        self,
        labels: Sequence[str] | None = None,
        networks: ArrayLike | None = None,
    ) -> pd.DataFrame:
        """Return a row per tested cell, the smallest p first.

        Parameters
        ----------
        labels : sequence of str or None, default=None
            Names of the regions (or of the networks, of blocks); numbers if None.
        networks : array-like of shape (n_regions,) or None, default=None
            Network of each region, for a further column.

        Returns
        -------
        DataFrame
            ``region`` and ``network``; or of square maps ``from`` and ``to`` (rows
            attend to columns; of symmetric maps each edge once) with ``from_network``
            and ``to_network``. Then ``difference``, ``low``, ``high``,
            ``effect_size``, ``t``, ``p``, ``p_corrected`` and maybe ``cluster``.

        Raises
        ------
        ValueError
            If names are not one per region.
        """
        cells = self._cells()
        sides = ["region"] if len(cells) == 1 else ["from", "to"]
        columns: dict[str, np.ndarray] = {}
        for size, side, cell in zip(self.p.shape, sides, cells, strict=True):
            names = np.arange(size) if labels is None else _names(labels, size)
            columns[side] = names[cell]
        if networks is not None:
            for size, side, cell in zip(self.p.shape, sides, cells, strict=True):
                name = "network" if side == "region" else f"{side}_network"
                columns[name] = _names(networks, size)[cell]
        fields = ("difference", "low", "high", "effect_size", "t", "p", "p_corrected")
        columns |= {name: getattr(self, name)[cells] for name in fields}
        if self.clusters is not None:
            columns["cluster"] = self.clusters[cells]
        table = pd.DataFrame(columns)
        order = np.lexsort([-table["t"].abs(), table["p"], table["p_corrected"]])
        return table.iloc[order].reset_index(drop=True)

    def _cells(self) -> tuple[np.ndarray, ...]:
        """Return the indices of the tested cells."""
        tested = ~np.isnan(self.p)
        return np.nonzero(np.triu(tested) if self.is_symmetric else tested)


def _names(given: ArrayLike, size: int) -> np.ndarray:
    """Return names, checked to be as many as regions."""
    names = np.asarray(given, dtype=object)
    if names.shape != (size,):
        raise ValueError(
            f"Contrast.table needs {size} names, one per region. Got {names.shape}. "
            "Use the labels of the same atlas."
        )
    return names
