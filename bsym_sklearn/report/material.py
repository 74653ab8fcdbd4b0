"""What every section of a page is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bsym_sklearn.estimators.embedder import NETWORK_COLUMNS
from bsym_sklearn.report.contents import brief, some_rows
from bsym_sklearn.report.scans import Scans, read_scans

PLACES = ("x", "y", "z")


@dataclass(frozen=True)
class Material:
    """A fitted model, the scans that it is shown, and what is known of the regions.

    Attributes
    ----------
    estimator : estimator
        Fitted.
    scans : Scans
        All that can be used.
    rows : ndarray of int
        Those for which the slower sections compute.
    networks : ndarray of str of shape (n_regions,) or None
        Network of each region.
    coordinates : ndarray of shape (n_regions, 3) or None
        Centres of the regions, mm, MNI.
    comparison : DataFrame or None
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.
    random_state : int
        Seed of what is drawn at random.
    call : str
        The call that made the page.
    """

    estimator: Any
    scans: Scans
    rows: np.ndarray
    networks: np.ndarray | None
    coordinates: np.ndarray | None
    comparison: pd.DataFrame | None
    random_state: int
    call: str

    @property
    def some_scans(self) -> Any:
        """The scans for the slower sections, in the form that the user gave them."""
        return self.scans.take(self.rows)

    @property
    def some_names(self) -> list[str]:
        """What these are called."""
        names = self.scans.names()
        return [names[row] for row in self.rows]

    @property
    def regions(self) -> list[str]:
        """Names of the regions, or their numbers."""
        table = self.scans.cohort.regions
        if table is not None and "label" in table:
            return [str(name) for name in table["label"]]
        return [str(i) for i in range(self.scans.cohort.n_regions)]

    @property
    def short_networks(self) -> list[str] | None:
        """Networks of the regions, in names that fit into a picture."""
        return None if self.networks is None else brief(list(self.networks))

    def on_how_many(self) -> str:
        """Return on how many of the scans a slower section rests."""
        n, total = len(self.rows), len(self.scans)
        return f"all {total:,} scans" if n == total else f"{n:,} of {total:,} scans"


def make_material(
    estimator: Any,
    X: Any,
    y: ArrayLike | None = None,
    *,
    comparison: pd.DataFrame | None = None,
    networks: ArrayLike | None = None,
    coordinates: ArrayLike | None = None,
    max_scans: int = 50,
    random_state: int = 0,
    path: str | Path = "report.html",
) -> Material:
    """Read the scans, and find out what is known of the regions.

    Parameters
    ----------
    estimator, X, y, comparison, networks, coordinates, max_scans, random_state, path
        See :func:`~bsym_sklearn.report.make_report`.

    Returns
    -------
    Material

    Raises
    ------
    BrainDataError
        If no scan can be used, or `y` has another length.
    ValueError
        If a parameter does not fit the scans.

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=4, n_regions=3).data
    >>> material = make_material(FeatureClassifier(), X, max_scans=2)
    >>> len(material.scans), len(material.rows), material.networks.tolist()[0]
    (4, 2, 'network-1')
    """
    scans = read_scans(X, y, estimator)
    regions, n_regions = scans.cohort.regions, scans.cohort.n_regions
    options = {
        "comparison": comparison is not None,
        "networks": networks is not None,
        "coordinates": coordinates is not None,
    }
    given = ["model", "X", *(["y"] if y is not None else [])]
    given += [f"{name}={name}" for name, is_given in options.items() if is_given]
    given += [f"path={Path(path).name!r}", f"{max_scans=}", f"{random_state=}"]
    return Material(
        estimator=estimator,
        scans=scans,
        rows=some_rows(len(scans), max_scans, random_state),
        networks=find_networks(networks, regions, n_regions),
        coordinates=find_coordinates(coordinates, regions, n_regions),
        comparison=comparison,
        random_state=int(random_state),
        call=f"make_report({', '.join(given)})",
    )


def find_networks(
    networks: ArrayLike | None, regions: pd.DataFrame | None, n_regions: int
) -> np.ndarray | None:
    """Return the network of each region: as given, or from the table of regions.

    Parameters
    ----------
    networks : array-like of shape (n_regions,) or None
        Names.
    regions : DataFrame or None
        Table of the regions.
    n_regions : int
        Number of regions.

    Returns
    -------
    ndarray of str or None

    Raises
    ------
    ValueError
        If there is not one name per region.

    Examples
    --------
    >>> find_networks(None, pd.DataFrame({"network": ["Vis", None]}), 2).tolist()
    ['Vis', 'none']
    """
    if networks is None and regions is not None:
        networks = next((regions[c] for c in NETWORK_COLUMNS if c in regions), None)
    if networks is None:
        return None
    names = pd.Series(np.asarray(networks, dtype=object))
    if len(names) != n_regions:
        raise ValueError(
            f"`networks` needs one name per region. Got {len(names)} for {n_regions} "
            "regions. Pass those of the same atlas."
        )
    return names.where(names.notna(), "none").astype(str).to_numpy(dtype=str)


def find_coordinates(
    coordinates: ArrayLike | None, regions: pd.DataFrame | None, n_regions: int
) -> np.ndarray | None:
    """Return the centre of each region: as given, or from the table of regions.

    Parameters
    ----------
    coordinates : array-like of shape (n_regions, 3) or None
        Centres, mm, MNI.
    regions : DataFrame or None
        Table of the regions.
    n_regions : int
        Number of regions.

    Returns
    -------
    ndarray of shape (n_regions, 3) or None

    Raises
    ------
    ValueError
        If the shape is another.

    Examples
    --------
    >>> find_coordinates([[0, 0, 0]], None, 1)
    array([[0., 0., 0.]])
    """
    if coordinates is None and regions is not None and {*PLACES} <= {*regions}:
        coordinates = regions[list(PLACES)].apply(pd.to_numeric, errors="coerce")
    if coordinates is None:
        return None
    places = np.asarray(coordinates, dtype=float)
    if places.shape != (n_regions, 3):
        raise ValueError(
            f"`coordinates` needs shape ({n_regions}, 3), in mm. Got {places.shape}. "
            "Pass those of the same atlas."
        )
    return places
