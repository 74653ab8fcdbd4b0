"""Where a region lies: gradients of functional, spectra of structural connectivity.

Shape letters: R regions, K components.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from bsym_sklearn.data.checks import (
    ConstantRegions,
    check_count,
    find_constant_regions,
)
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.transformer import no_table_error
from bsym_sklearn.exceptions import BrainDataError

# Keeps Fisher's z finite where two regions are equal: z <= 8.3.
LARGEST_CORRELATION = 1 - 1e-7
# Cosines above this are those of equal vectors.
ONE = 1 - 1e-12


class GradientCoordinates(TransformerMixin, BaseEstimator):
    """Place regions along the gradients of functional connectivity.

    Diffusion maps of the training rows' mean connectivity: Fisher-z correlations are
    averaged, each region keeps its strongest positive connections, two regions are
    alike as far as their kept connections point in the same direction
    (``1 - angle / pi``), and the leading eigenvectors of the diffusion over these
    affinities, each times ``lambda / (1 - lambda)``, are the coordinates. Works for any
    atlas. `fit` gives one set of coordinates for the group (`coordinates_`);
    `transform` places the regions of each scan on the group's gradients.

    Parameters
    ----------
    n_components : int, default=10
        Number of gradients, in [1, n_regions - 1].
    sparsity : float, default=0.9
        Share of each region's connections to drop, in [0, 1).
    alpha : float, default=0.5
        Influence of the sampling density, in [0, 1]; 0 is maximal.
    constant_regions : {"error", "mask"}, default="error"
        Whether a region that never changes within a scan raises, or counts as
        unconnected in that scan.

    Attributes
    ----------
    coordinates_ : ndarray of shape (n_regions, n_components)
        The group's gradients. The entry of largest magnitude of each is positive.
    lambdas_ : ndarray of shape (n_components,)
        Eigenvalues of the diffusion, decreasing, below 1.
    profiles_ : ndarray of shape (n_regions, n_regions)
        The group's kept connections, one unit vector per region.
    n_features_in_ : int
        Number of regions.

    References
    ----------
    .. [1] Coifman & Lafon (2006). Diffusion maps. Appl. Comput. Harmon. Anal. 21:5.
    .. [2] Margulies et al. (2016). Situating the default-mode network along a principal
       gradient. PNAS 113:12574. doi:10.1073/pnas.1608282113.
    .. [3] Vos de Wael et al. (2020). BrainSpace. Commun. Biol. 3:103.
       doi:10.1038/s42003-020-0794-7 (same affinity and scaling).

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import GradientCoordinates
    >>> X = np.random.default_rng(0).normal(size=(5, 60, 20))
    >>> gradients = GradientCoordinates(n_components=3).fit(X)
    >>> gradients.coordinates_.shape, gradients.transform(X).shape
    ((20, 3), (5, 60))
    """

    def __init__(
        self,
        *,
        n_components: int = 10,
        sparsity: float = 0.9,
        alpha: float = 0.5,
        constant_regions: ConstantRegions = "error",
    ) -> None:
        self.n_components = n_components
        self.sparsity = sparsity
        self.alpha = alpha
        self.constant_regions = constant_regions

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute the gradients of the training rows.

        Parameters
        ----------
        X : DataFrame, list, ndarray, Tensor, SliceDict, Series or Cohort
            Scans in any form that `check_cohort` accepts, of at least three time
            points. Rows without fmri are left out.
        y : None
            Ignored.

        Returns
        -------
        self : GradientCoordinates
            The fitted transformer.

        Raises
        ------
        BrainDataError
            If the data cannot be used, or there are too few regions.
        ValueError
            If a parameter is out of its range.
        """
        _check_settings(self.n_components, self.sparsity, self.alpha)
        cohort = self._check_input(X, n_regions=None)
        if "fmri" not in cohort.modalities:
            raise BrainDataError(
                "GradientCoordinates needs 'fmri' in at least one row. Got "
                f"{list(cohort.modalities)} only. Pass rows that have it."
            )
        _check_n_regions(type(self).__name__, cohort.n_regions, self.n_components)
        self.n_features_in_ = cohort.n_regions
        self._region_names = _region_names(cohort)
        self.profiles_ = _profiles(_mean_connectivity(cohort), self.sparsity)
        self._density, self.lambdas_, self._vectors = _gradients(
            self.profiles_, self.n_components, self.alpha
        )
        self.coordinates_ = self._vectors * (self.lambdas_ / (1 - self.lambdas_))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Place the regions of each scan on the group's gradients.

        A scan's own connections are compared with those of the group's regions, and
        the gradients are extended to them (Nystrom). The connectivity that was
        averaged in `fit` would come out as `coordinates_`.

        Parameters
        ----------
        X : DataFrame, list, ndarray, Tensor, SliceDict, Series or Cohort
            Scans, each with fmri of at least three time points.

        Returns
        -------
        coordinates : ndarray of shape (n_scans, n_regions * n_components)
            All gradients of the first region, then of the second, ...

        Raises
        ------
        BrainDataError
            If the data cannot be used, or a row has no fmri.
        """
        check_is_fitted(self)
        cohort = self._check_input(X, n_regions=self.n_features_in_)
        rows = []
        for i, recording in enumerate(cohort.fmri):
            if recording is None:
                raise BrainDataError(
                    "GradientCoordinates needs 'fmri' in every row that is "
                    f"transformed. Got none, first in scan {i}. Leave the row out."
                )
            connectivity = _fisher_z(recording.read(np.float64))[0]
            rows.append(self._extend(_profiles(connectivity, self.sparsity)).ravel())
        return np.stack(rows)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return names such as ``"region3_gradient1"``.

        Regions have their ``label`` from ``X.attrs["regions"]``, if there is one.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str objects of shape (n_regions * n_components,)
            One name per column of `transform`.
        """
        check_is_fitted(self)
        return np.array(
            [
                f"{region}_gradient{k + 1}"
                for region in self._region_names
                for k in range(len(self.lambdas_))
            ],
            dtype=object,
        )

    def _extend(self, profiles: np.ndarray) -> np.ndarray:
        """Return the coordinates of other profiles on the group's gradients, (R, K)."""
        steps = _affinity(profiles, self.profiles_) * self._density
        steps /= steps.sum(axis=1, keepdims=True)
        # steps @ vectors / lambda are the eigenvectors; times lambda / (1 - lambda)
        return steps @ self._vectors / (1 - self.lambdas_)

    def _check_input(self, X: Any, *, n_regions: int | None) -> Cohort:
        cohort = check_cohort(
            X,
            caller=type(self).__name__,
            constant_regions=self.constant_regions,
            symmetric_sc="allow",
            min_timepoints=3,
            n_regions=n_regions,
        )
        if cohort.is_table:
            raise no_table_error(type(self).__name__)
        return cohort

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def connectivity_gradients(
    connectivity: Any,
    *,
    n_components: int = 10,
    sparsity: float = 0.9,
    alpha: float = 0.5,
) -> np.ndarray:
    """Place the regions of any atlas along the gradients of a connectivity matrix.

    The diffusion maps of `GradientCoordinates`, of a matrix instead of scans: a group's
    published connectivity, or one's own. Given the mean Fisher-z correlations of some
    scans, the result is ``GradientCoordinates().fit(scans).coordinates_``.

    Parameters
    ----------
    connectivity : array-like of shape (n_regions, n_regions)
        Symmetric and finite. Correlations or Fisher's z; each region keeps its
        strongest positive ones. The diagonal is not used.
    n_components : int, default=10
        Number of gradients, in [1, n_regions - 1].
    sparsity : float, default=0.9
        Share of each region's connections to drop, in [0, 1).
    alpha : float, default=0.5
        Influence of the sampling density, in [0, 1]; 0 is maximal.

    Returns
    -------
    coordinates : ndarray of shape (n_regions, n_components)
        The gradients, the one of the largest eigenvalue first. The entry of largest
        magnitude of each is positive.

    Raises
    ------
    BrainDataError
        If the matrix is not square, symmetric and finite, or has too few regions.
    ValueError
        If a parameter is out of its range.

    References
    ----------
    .. [1] Margulies et al. (2016). Situating the default-mode network along a principal
       gradient. PNAS 113:12574. doi:10.1073/pnas.1608282113.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data.positions import connectivity_gradients
    >>> series = np.random.default_rng(0).normal(size=(60, 20))
    >>> connectivity_gradients(np.corrcoef(series.T), n_components=3).shape
    (20, 3)
    """
    caller = "connectivity_gradients"
    _check_settings(n_components, sparsity, alpha)
    matrix = np.array(connectivity, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise BrainDataError(
            f"{caller} needs a square matrix. Got shape {matrix.shape}. Pass one row "
            "and one column per region."
        )
    np.fill_diagonal(matrix, 0)  # a region's likeness to itself says nothing
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T):
        raise BrainDataError(
            f"{caller} needs a finite and symmetric matrix. Got one with NaN, infinity "
            "or unequal halves. Leave out regions without signal, and average the "
            "halves."
        )
    _check_n_regions(caller, len(matrix), n_components)
    profiles = _profiles(matrix, sparsity)
    _, lambdas, vectors = _gradients(profiles, n_components, alpha)
    return vectors * (lambdas / (1 - lambdas))


def _check_settings(n_components: int, sparsity: float, alpha: float) -> None:
    check_count("n_components", n_components)
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1). Got {sparsity!r}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1]. Got {alpha!r}.")


def _check_n_regions(caller: str, n_regions: int, n_components: int) -> None:
    if n_components >= n_regions:
        raise BrainDataError(
            f"{caller} needs more regions than gradients. Got {n_regions} regions for "
            f"n_components={n_components}. Ask for fewer gradients."
        )


def _gradients(
    profiles: np.ndarray, n_components: int, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return density (R,), eigenvalues (K,), eigenvectors (R, K) of the diffusion."""
    affinity = _affinity(profiles, profiles)
    density = affinity.sum(axis=1) ** -alpha
    lambdas, vectors = _diffusion_map(
        affinity * np.outer(density, density), n_components
    )
    return density, lambdas, vectors


def _mean_connectivity(cohort: Cohort) -> np.ndarray:
    """Return the mean Fisher-z correlation of the scans in which both regions vary."""
    total = np.zeros((cohort.n_regions, cohort.n_regions))
    count = np.zeros_like(total)
    for i in np.flatnonzero(cohort.n_timepoints).tolist():
        connectivity, varies = _fisher_z(cohort.read_fmri(i, np.float64))
        total += connectivity
        count += np.outer(varies, varies)
    return total / np.maximum(count, 1)


def _fisher_z(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Fisher-z correlations (R, R), 0 on the diagonal, and who varies (R,)."""
    centred = values - values.mean(axis=0)
    varies = ~find_constant_regions(values)
    unit = _unit_rows(centred.T) * varies[:, None]
    correlation = unit @ unit.T
    np.fill_diagonal(correlation, 0)  # a region's likeness to itself says nothing
    limit = LARGEST_CORRELATION
    return np.arctanh(np.clip(correlation, -limit, limit)), varies


def _profiles(connectivity: np.ndarray, sparsity: float) -> np.ndarray:
    """Keep each row's strongest positive entries, as a unit vector."""
    n_regions = len(connectivity)
    n_kept = max(1, round((1 - sparsity) * n_regions))
    kept = np.argsort(-connectivity, axis=1, kind="stable")[:, :n_kept]
    profiles = np.zeros_like(connectivity)
    strongest = np.take_along_axis(connectivity, kept, axis=1)
    np.put_along_axis(profiles, kept, np.maximum(strongest, 0), axis=1)
    return _unit_rows(profiles)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Divide each row by its length; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def _affinity(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return 1 - angle / pi between unit vectors; 1/2 beside a row of zeros."""
    cosines = np.clip(rows @ others.T, -1, 1)
    cosines[cosines > ONE] = 1  # arccos makes 1e-8 of the last bit of a 1
    return 1 - np.arccos(cosines) / np.pi


def _diffusion_map(
    affinity: np.ndarray, n_components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (K,) and right eigenvectors (R, K) of the random walk.

    The walk D^-1 A has the eigenvalues of the symmetric D^-1/2 A D^-1/2, and its
    eigenvectors are those divided by the first, for which all regions are equal.
    """
    n_regions = len(affinity)
    root = affinity.sum(axis=1) ** -0.5
    values, vectors = eigh(
        affinity * np.outer(root, root),
        subset_by_index=[n_regions - n_components - 1, n_regions - 1],
    )
    values, vectors = values[::-1], vectors[:, ::-1]
    return values[1:], _fix_signs(vectors[:, 1:] / vectors[:, :1])


def _fix_signs(vectors: np.ndarray) -> np.ndarray:
    """Make the entry of largest magnitude of each column positive, the first of ties.

    Magnitudes are rounded, so that ties do not depend on the last bit.
    """
    magnitudes = np.abs(vectors)
    largest = magnitudes.max(axis=0, keepdims=True)
    row = (magnitudes >= largest * (1 - 1e-9)).argmax(axis=0)
    return vectors * np.sign(vectors[row, np.arange(vectors.shape[1])])


def _region_names(cohort: Cohort) -> list[str]:
    """Return the labels of the region table, or region0, region1, ..."""
    if cohort.regions is not None and "label" in cohort.regions:
        return [str(label) for label in cohort.regions["label"]]
    return [f"region{i}" for i in range(cohort.n_regions)]
