"""Features of scans that need no network: connectivity, amplitude, edges.

Shape letters: n scans, T time points, R regions, F features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from nilearn.connectome import ConnectivityMeasure
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.containers import is_table
from bsym_sklearn.estimators.base import _given_modalities, _region_names
from bsym_sklearn.estimators.covariates import has_columns
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.layers import check_choice

KINDS = ("correlation", "partial correlation", "tangent", "covariance")
FISHER_Z = KINDS[:2]  # these lie in [-1, 1] and have a diagonal of ones
HIGHEST_CORRELATION = 1 - 1e-7  # beyond it Fisher's z is infinite
CHUNK = 64  # scans in memory at once


class ScanFeatures(TransformerMixin, BaseEstimator):
    """Base of transformers that make features of one modality, scan by scan."""

    _modality: ClassVar[str]
    n_features_in_: int
    regions_: tuple[str, ...]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from the scans what the features need.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : None
            Ignored.

        Returns
        -------
        self : the same transformer

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or none has the modality.
        ValueError
            If a parameter is unknown.
        """
        self._check_parameters()
        cohort = self._check_scans(X, reset=True)
        rows = self._rows(cohort)
        if not rows:
            raise BrainDataError(
                f"{type(self).__name__} needs {self._modality!r} in at least one row. "
                f"Got {list(cohort.modalities)} only. Pass rows that have it."
            )
        self._on_table = cohort.is_table
        self.n_features_in_ = cohort.n_regions
        self.regions_ = _region_names(cohort)
        if not cohort.is_table:
            self._fit_rows(cohort, rows)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of the scans.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`. A 2-D table, which is read as
            scans of one time point, has nothing to compute and comes back as it is.

        Returns
        -------
        ndarray of shape (n, n_features)
            NaN in the rows of scans without the modality.

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or are of another kind than in `fit`.
        """
        check_is_fitted(self)
        cohort = self._check_scans(X, reset=False)
        if cohort.is_table:
            n = len(cohort)
            return np.concatenate([cohort.read_fmri(i, None) for i in range(n)])
        rows = self._rows(cohort)
        features = np.full((len(cohort), len(self._names())), np.nan)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            features[chunk] = self._features(cohort, chunk)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features.

        Parameters
        ----------
        input_features : None
            Ignored; the names come from the regions.

        Returns
        -------
        ndarray of str objects of shape (n_features,)
            ``"<region>"`` or ``"<region> - <region>"``.
        """
        check_is_fitted(self)
        if self._on_table:
            names = getattr(self, "feature_names_in_", None)
            return np.asarray(self.regions_ if names is None else names, dtype=object)
        return np.asarray(self._names(), dtype=object)

    def _check_parameters(self) -> None:
        """Raise if a constructor parameter is unknown."""

    def _fit_rows(self, cohort: Cohort, rows: list[int]) -> None:
        """Learn from the rows that have the modality."""

    @abstractmethod
    def _features(self, cohort: Cohort, rows: list[int]) -> np.ndarray:
        """Return the features (n_rows, F) of these rows."""

    @abstractmethod
    def _names(self) -> Sequence[str]:
        """Return the names of the features of scans."""

    def _rows(self, cohort: Cohort) -> list[int]:
        """Return the rows that have the modality; all those of a table."""
        sc = self._modality == "sc" and not cohort.is_table
        cells = cohort.sc if sc else cohort.fmri
        return [i for i, cell in enumerate(cells) if cell is not None]

    def _check_scans(self, X: Any, *, reset: bool) -> Cohort:
        """Validate `X`; at `transform`, compare it with what `fit` saw."""
        name = type(self).__name__
        given = _given_modalities(X)
        table = not isinstance(X, Cohort) and is_table(X)
        if table:
            X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        elif reset and hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of a table that was fitted before
        cohort = check_cohort(
            X,
            caller=name,
            constant_regions="mask",
            symmetric_sc="allow" if self._modality == "fmri" else "require",
            n_regions=None if reset else self.n_features_in_,
            bare=self._modality,
        )
        if reset:
            return cohort
        if cohort.is_table != self._on_table:
            kinds = ("scans", "a 2-D table")
            raise BrainDataError(
                f"{name} was fitted on {kinds[self._on_table]} and needs the same. Got "
                f"{kinds[cohort.is_table]}. Pass [X] if X is one scan."
            )
        named = isinstance(X, Cohort) or has_columns(X)
        if named and not cohort.is_table and self._modality not in given:
            raise BrainDataError(
                f"{name} needs {self._modality!r}. Got an X without it. Pass a "
                "DataFrame with that column (cells may be missing)."
            )
        return cohort


class ConnectivityFeatures(ScanFeatures):
    r"""Functional connectivity of each scan, as one row of features.

    Covariances are those of Ledoit and Wolf, of series that are z-scored per scan but
    for ``"covariance"``. Correlations :math:`r` become Fisher's
    :math:`z = \operatorname{artanh} r`.

    Parameters
    ----------
    kind : {"correlation", "partial correlation", "tangent", "covariance"}, \
default="correlation"
        Tangent vectors are displacements from the geometric mean of the covariances of
        `fit` [1]_, and keep their diagonal, as covariances do.

    Attributes
    ----------
    measure_ : nilearn.connectome.ConnectivityMeasure
        Fitted on the scans of `fit`.
    regions_ : tuple of str
        Names of the regions.
    n_features_in_ : int
        Regions R.

    Notes
    -----
    Edges are those of the lower triangle, row by row. A region that never changes is
    correlated with nothing.

    References
    ----------
    .. [1] Varoquaux et al. (2010). Detection of brain functional-connectivity
       difference in post-stroke patients using group-level covariance modeling.
       MICCAI, equation 4.
    .. [2] Dadi et al. (2019). Benchmarking functional connectome-based predictive
       models for resting-state fMRI. NeuroImage 192, 115-134.

    Examples
    --------
    >>> from bsym_sklearn import ConnectivityFeatures
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=6, n_regions=4, n_timepoints=40).data
    >>> tangent = ConnectivityFeatures("tangent").fit(X)
    >>> tangent.transform(X[:1]).shape
    (1, 10)
    """

    _modality = "fmri"

    def __init__(self, kind: str = "correlation") -> None:
        self.kind = kind

    def _check_parameters(self) -> None:
        """Check the kind."""
        check_choice(self.kind, KINDS, "kind")

    def _fit_rows(self, cohort: Cohort, rows: list[int]) -> None:
        """Learn the mean covariance, which only tangent vectors need."""
        self.measure_ = ConnectivityMeasure(
            kind=self.kind,
            vectorize=True,
            discard_diagonal=self.kind in FISHER_Z,
            standardize=False if self.kind == "covariance" else "zscore_sample",
        )
        if self.kind == "tangent" and len(rows) < 2:
            raise BrainDataError(
                "ConnectivityFeatures needs fMRI in at least 2 rows for "
                f"kind='tangent'. Got {len(rows)}. Fit it on more scans."
            )
        needed = rows if self.kind == "tangent" else rows[:1]
        self.measure_.fit(_series(cohort, needed))

    def _features(self, cohort: Cohort, rows: list[int]) -> np.ndarray:
        """Return one row of edges per scan."""
        # nilearn has no tangent vector of one scan alone: it comes twice.
        series = _series(cohort, rows if len(rows) > 1 else rows * 2)
        edges = self.measure_.transform(series)[: len(rows)]
        if self.kind in FISHER_Z:
            edges = np.arctanh(edges.clip(-HIGHEST_CORRELATION, HIGHEST_CORRELATION))
        return edges

    def _names(self) -> list[str]:
        """Return the two regions of each edge."""
        return _edge_names(self.regions_, diagonal=self.kind not in FISHER_Z)


class RegionAmplitude(ScanFeatures):
    """Logarithm of the standard deviation of each region's series.

    A control: what it predicts needs no connectivity. NaN for a region that never
    changes. Of series that were z-scored per scan nothing is left.

    Attributes
    ----------
    regions_ : tuple of str
        Names of the regions.
    n_features_in_ : int
        Regions R.

    Examples
    --------
    >>> from bsym_sklearn import RegionAmplitude
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=6, n_regions=4, n_timepoints=40).data
    >>> RegionAmplitude().fit_transform(X).shape
    (6, 4)
    """

    _modality = "fmri"

    def _features(self, cohort: Cohort, rows: list[int]) -> np.ndarray:
        """Return one value per region."""
        deviations = np.stack([series.std(0) for series in _series(cohort, rows)])
        return np.log(np.where(deviations > 0, deviations, np.nan))

    def _names(self) -> Sequence[str]:
        """Return the regions."""
        return self.regions_


class ConnectomeFeatures(ScanFeatures):
    r"""Edges of each structural connectome, as one row of features.

    :math:`\operatorname{sign}(w) \log(1 + |w|)` of each weight :math:`w` of the lower
    triangle, row by row: the order of `ConnectivityFeatures`. Scans without columns,
    such as a list of matrices, are read as connectomes.

    Attributes
    ----------
    regions_ : tuple of str
        Names of the regions.
    n_features_in_ : int
        Regions R.

    Examples
    --------
    >>> from bsym_sklearn import ConnectomeFeatures
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=6, n_regions=4, n_timepoints=40).data
    >>> ConnectomeFeatures().fit(X).get_feature_names_out()[0]
    'region-2 - region-1'
    """

    _modality = "sc"

    def _features(self, cohort: Cohort, rows: list[int]) -> np.ndarray:
        """Return one row of edges per scan."""
        lower = np.tril_indices(cohort.n_regions, k=-1)
        weights = np.stack([cohort.read_sc(i, np.float64)[lower] for i in rows])
        return np.sign(weights) * np.log1p(np.abs(weights))

    def _names(self) -> list[str]:
        """Return the two regions of each edge."""
        return _edge_names(self.regions_, diagonal=False)


def _series(cohort: Cohort, rows: Iterable[int]) -> list[np.ndarray]:
    """Return the series of these rows in double precision."""
    return [cohort.read_fmri(i, np.float64) for i in rows]


def _edge_names(regions: Sequence[str], *, diagonal: bool) -> list[str]:
    """Return the names of the lower triangle, row by row."""
    last = 1 if diagonal else 0
    return [
        f"{region} - {other}"
        for i, region in enumerate(regions)
        for other in regions[: i + last]
    ]
