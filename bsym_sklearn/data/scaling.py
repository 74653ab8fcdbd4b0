"""Scaling of series per region and of connectomes per cohort, fitted on training rows.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from bsym_sklearn.data.checks import (
    ConstantRegions,
    check_option,
    find_constant_regions,
)
from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.data.transformer import ScanTransformer, check_scan
from bsym_sklearn.exceptions import BrainDataError

# Pooled quantiles hold their sample in memory: 200,000 time points of 450 regions are
# 360 MB in float32.
N_POOLED_TIMEPOINTS = 200_000
# Pooled weights: 5 million are 40 MB.
N_POOLED_WEIGHTS = 5_000_000

# A deviation smaller than this share of the mean is rounding noise.
ROUNDING = 1e-12


class RegionScaler(ScanTransformer):
    """Scale each region's series, by its own scan or by the training cohort.

    Parameters
    ----------
    method : {"zscore", "robust", "demean"}, default="zscore"
        (x - mean) / standard deviation, (x - median) / interquartile range, or
        x - mean. The deviation is that of the population (divided by T). A region
        whose interquartile range is 0 although it varies is divided by its standard
        deviation.
    per : {"scan", "cohort"}, default="scan"
        Where the statistics come from: from the scan itself, so that nothing is
        learned, or from all time points of the training rows. A scan of one time point,
        such as a row of a 2-D table, has no statistics of its own and is always
        scaled by those of the cohort.
    constant_regions : {"error", "mask"}, default="error"
        Whether a region that never changes within a scan raises, or becomes 0.

    Attributes
    ----------
    center_, scale_ : ndarray of shape (n_regions,)
        What is subtracted and divided by, when statistics of the cohort are used. A
        scale of 0 marks a region that is constant in training; it becomes 0.
    n_features_in_ : int
        Number of regions.

    Notes
    -----
    Means and deviations of the cohort are exact and computed in one pass, one scan in
    memory at a time. Quantiles of the cohort use at most 200,000 time points, every
    k-th of the training rows.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import RegionScaler
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(5, 2, size=(t, 3)) for t in (30, 40)]
    >>> scaled = RegionScaler().fit_transform(X)
    >>> [x.shape for x in scaled], bool(np.allclose(scaled[0].std(axis=0), 1))
    ([(30, 3), (40, 3)], True)
    """

    def __init__(
        self,
        *,
        method: Literal["zscore", "robust", "demean"] = "zscore",
        per: Literal["scan", "cohort"] = "scan",
        constant_regions: ConstantRegions = "error",
    ) -> None:
        self.method = method
        self.per = per
        self.constant_regions = constant_regions

    def scale(self, values: Any) -> np.ndarray:
        """Scale one scan.

        Parameters
        ----------
        values : array-like of shape (n_timepoints, n_regions)
            One scan; its values are not checked.

        Returns
        -------
        scaled : ndarray of shape (n_timepoints, n_regions)
            The scaled scan; float64 if the values need it, else float32.

        Raises
        ------
        BrainDataError
            If the shape is another than in fit, or a scan of one time point is to be
            scaled without statistics of a cohort.
        """
        check_is_fitted(self)
        scan = check_scan(
            values, caller=type(self).__name__, n_regions=self.n_features_in_
        )
        return self._transform_scan(scan, "the scan")

    def statistics(
        self, values: np.ndarray, label: str = "the scan"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what one scan is centred on and divided by.

        With `standardize`, any part of the scan can then be scaled without the rest.

        Parameters
        ----------
        values : ndarray of shape (n_timepoints, n_regions)
            The whole scan; its values are not checked.
        label : str, default="the scan"
            Words that name the scan in an error.

        Returns
        -------
        center, scale : ndarray of float64 of shape (n_regions,)
            A scale of 0 marks a constant region, which becomes 0.

        Raises
        ------
        BrainDataError
            If a scan of one time point is to be scaled without statistics of a cohort.

        Examples
        --------
        >>> import numpy as np
        >>> from bsym_sklearn.data import RegionScaler
        >>> X = [np.array([[1.0, 5.0], [3.0, 7.0]])]
        >>> RegionScaler().fit(X).statistics(X[0])
        (array([2., 6.]), array([1., 1.]))
        """
        if self.per == "scan" and len(values) > 1:
            center, scale = _scan_statistics(values, self.method)
        elif hasattr(self, "center_"):
            center, scale = self.center_, self.scale_
        else:
            raise BrainDataError(
                "RegionScaler needs several time points to scale a scan by itself. Got "
                f"1, first in {label}. Use per='cohort'."
            )
        return center, np.where(find_constant_regions(values), 0.0, scale)

    def _check_parameters(self) -> None:
        check_option("method", self.method, ("zscore", "robust", "demean"))
        check_option("per", self.per, ("scan", "cohort"))
        check_option("constant_regions", self.constant_regions, ("error", "mask"))

    def _fit_cohort(self, cohort: Cohort) -> None:
        for name in ("center_", "scale_"):
            self.__dict__.pop(name, None)
        if self.per == "cohort" or (cohort.n_timepoints == 1).any():
            pool = _pooled_quantiles if self.method == "robust" else _pooled_moments
            self.center_, self.scale_ = pool(cohort)
            if self.method == "demean":
                self.scale_ = (self.scale_ > 0).astype(np.float64)

    def _transform_scan(self, values: np.ndarray, label: str) -> np.ndarray:
        return standardize(values, *self.statistics(values, label))


class ConnectomeScaler(ScanTransformer):
    """Compress and scale structural connection weights, keeping absent edges at 0.

    ``sign(w) log(1 + |w| / scale_) / spread_``, with one `scale_` and one `spread_` for
    the whole training cohort, so that differences between people and between edges
    remain.

    Parameters
    ----------
    method : {"log", "linear"}, default="log"
        "linear" leaves out the logarithm: ``w / scale_ / spread_``.
    symmetrize : {None, "mean", "max"}, default=None
        None raises on an asymmetric matrix. "mean" averages the two directions, "max"
        takes the one of larger magnitude (the positive one of two equal magnitudes).
    diagonal : {"zero", "keep"}, default="zero"
        What becomes of a region's connection with itself.

    Attributes
    ----------
    scale_ : float
        Median magnitude of the present (non-zero) weights of the training rows.
    spread_ : float
        Root mean square of the present weights after ``log(1 + |w| / scale_)``.
    n_features_in_ : int
        Number of regions (columns, for a 2-D table).

    Notes
    -----
    Why not the usual log10 of the count: it is negative for a weight below 1 and minus
    infinity for an absent edge, so that where counts are divided by volumes the sign
    tells the unit and not the connection, and an absent edge needs an arbitrary value.
    Here an absent edge is exactly 0, a weak one is near 0, the sign is that of the
    weight, and a change of unit changes nothing.

    An X without column names holds connectomes: a list of (n_regions, n_regions)
    matrices or an (n_scans, n_regions, n_regions) array. A 2-D X is a table with one
    row per scan and one column per edge; `symmetrize` and `diagonal` do not apply to
    it. At most 5 million weights, every k-th, are used to fit.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import ConnectomeScaler
    >>> counts = np.array([[0, 1000, 0], [1000, 0, 10], [0, 10, 0]])
    >>> scaler = ConnectomeScaler().fit([counts])
    >>> scaler.scale(counts).round(2)
    array([[0.  , 1.41, 0.  ],
           [1.41, 0.  , 0.03],
           [0.  , 0.03, 0.  ]])
    """

    _modality = "sc"

    def __init__(
        self,
        *,
        method: Literal["log", "linear"] = "log",
        symmetrize: Literal["mean", "max"] | None = None,
        diagonal: Literal["zero", "keep"] = "zero",
    ) -> None:
        self.method = method
        self.symmetrize = symmetrize
        self.diagonal = diagonal

    def scale(self, weights: Any) -> np.ndarray:
        """Scale one connectome.

        Parameters
        ----------
        weights : array-like of shape (n_regions, n_regions)
            One connectome; its values are not checked.

        Returns
        -------
        scaled : ndarray of shape (n_regions, n_regions)
            The scaled connectome; float64 if the values need it, else float32.

        Raises
        ------
        BrainDataError
            If the shape is another than in fit.
        """
        check_is_fitted(self)
        matrix = check_scan(
            weights, caller=type(self).__name__, n_regions=self.n_features_in_
        )
        return self._scale(self._prepare(matrix))

    @property
    def _symmetric_sc(self) -> Literal["require", "allow"]:  # type: ignore[override]
        return "require" if self.symmetrize is None else "allow"

    def _check_parameters(self) -> None:
        check_option("method", self.method, ("log", "linear"))
        check_option("symmetrize", self.symmetrize, (None, "mean", "max"))
        check_option("diagonal", self.diagonal, ("zero", "keep"))

    def _fit_cohort(self, cohort: Cohort) -> None:
        weights = self._pooled_weights(cohort)
        self.scale_ = self.spread_ = 1.0
        if len(weights):
            self.scale_ = float(np.median(weights))
            self.spread_ = float(np.sqrt(np.mean(self._scale(weights) ** 2)))

    def _pooled_weights(self, cohort: Cohort) -> np.ndarray:
        """Return magnitudes of present weights, every k-th of each scan."""
        present = [r for r in self._recordings(cohort) if r is not None]
        n_weights = sum(math.prod(r.shape) for r in present)
        step = -(-n_weights // N_POOLED_WEIGHTS)
        pooled = []
        for i, recording in enumerate(present):
            weights = self._prepare(recording.read(np.float64))
            magnitudes = np.abs(weights).ravel()[i % step :: step]
            pooled.append(magnitudes[magnitudes > 0])
        return np.concatenate(pooled)

    def _transform_scan(self, values: np.ndarray, label: str) -> np.ndarray:
        return self._scale(self._prepare(values))

    def _prepare(self, weights: np.ndarray) -> np.ndarray:
        """Symmetrise and clear the diagonal, as asked for; a table's row has none."""
        if len(weights) == 1:
            return weights
        if self.symmetrize is not None:
            weights = symmetrize_weights(weights, self.symmetrize)
        if self.diagonal == "zero":
            weights = np.where(np.eye(len(weights), dtype=bool), 0, weights)
        return weights

    def _scale(self, weights: np.ndarray) -> np.ndarray:
        magnitudes = np.abs(weights) / self.scale_
        if self.method == "log":
            magnitudes = np.log1p(magnitudes)
        return np.copysign(magnitudes, weights) / self.spread_


def standardize(
    values: np.ndarray, center: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Return ``(values - center) / scale``, and 0 where the scale is 0.

    Parameters
    ----------
    values : ndarray of shape (n_timepoints, n_regions)
        A scan, or a part of one.
    center, scale : ndarray of shape (n_regions,)
        See `RegionScaler.statistics`.

    Returns
    -------
    scaled : ndarray of shape (n_timepoints, n_regions)
        Computed in float64, of the type of `values`.

    Examples
    --------
    >>> import numpy as np
    >>> standardize(np.array([[3.0, 7.0]]), np.array([1.0, 7.0]), np.array([2.0, 0.0]))
    array([[1., 0.]])
    """
    scaled = np.zeros(values.shape)
    np.divide(values - center, scale, out=scaled, where=scale > 0)
    return scaled.astype(values.dtype)


def symmetrize_weights(
    weights: np.ndarray, how: Literal["mean", "max"] = "mean"
) -> np.ndarray:
    """Make a connectome symmetric.

    Parameters
    ----------
    weights : ndarray of shape (n_regions, n_regions)
        Weights that may differ between the two directions of an edge.
    how : {"mean", "max"}, default="mean"
        Average the two directions, or take the one of larger magnitude (the positive
        one of two equal magnitudes).

    Returns
    -------
    symmetric : ndarray of shape (n_regions, n_regions)
        Exactly symmetric weights.

    Raises
    ------
    ValueError
        If `how` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import symmetrize_weights
    >>> symmetrize_weights(np.array([[0.0, 4.0], [1.0, 0.0]]))
    array([[0. , 2.5],
           [2.5, 0. ]])
    """
    check_option("how", how, ("mean", "max"))
    if how == "mean":
        return (weights + weights.T) / 2
    higher, lower = np.maximum(weights, weights.T), np.minimum(weights, weights.T)
    return np.where(higher >= -lower, higher, lower)


def _scan_statistics(values: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale of one scan, each (R,)."""
    values = values.astype(np.float64)
    if method == "robust":
        return _quantile_statistics(values)
    center = values.mean(axis=0)
    scale = values.std(axis=0)
    return center, np.ones_like(scale) if method == "demean" else scale


def _quantile_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and interquartile range, each (R,)."""
    quantiles = np.quantile(values, (0.25, 0.5, 0.75), axis=0).astype(np.float64)
    lower, center, upper = quantiles
    spread = np.where(upper > lower, upper - lower, values.std(axis=0, dtype=float))
    return center, _without_rounding(spread, center)


def _without_rounding(scale: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return the scale, 0 where it is what rounding leaves of a constant region."""
    return np.where(scale > ROUNDING * np.abs(center), scale, 0.0)


def _pooled_moments(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over all time points, each (R,).

    Chan, Golub & LeVeque (1983), Am. Stat. 37:242, eq. 2.1: scans are merged one by
    one, which is exact and does not cancel.
    """
    count = 0
    mean = np.zeros(cohort.n_regions)
    squares = np.zeros(cohort.n_regions)
    for i in np.flatnonzero(cohort.n_timepoints).tolist():
        values = cohort.read_fmri(i, np.float64)
        n = len(values)
        scan_mean = values.mean(axis=0)
        shift = scan_mean - mean
        squares += ((values - scan_mean) ** 2).sum(axis=0)
        squares += shift**2 * (count * n / (count + n))
        count += n
        mean += shift * (n / count)
    return mean, _without_rounding(np.sqrt(squares / count), mean)


def _pooled_quantiles(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Return median and interquartile range over (every k-th of) all time points."""
    n_timepoints = cohort.n_timepoints
    step = -(-int(n_timepoints.sum()) // N_POOLED_TIMEPOINTS)
    sample, offset = [], 0
    for i in np.flatnonzero(n_timepoints).tolist():
        sample.append(cohort.read_fmri(i, None)[-offset % step :: step])
        offset += n_timepoints[i]
    return _quantile_statistics(np.concatenate(sample))
