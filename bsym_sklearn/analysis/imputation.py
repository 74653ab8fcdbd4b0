"""Simple ways to fill in what is hidden of a scan: the floors of a reconstruction.

All have the interface of :class:`~bsym_sklearn.BrainSymphonyEmbedder` for this:
``fit(X)``, ``scaled(X, modality)`` and ``reconstruct(X, modality=..., mask=...)``.

Shape letters: n scans, T time points, R regions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy.linalg import toeplitz
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from bsym_sklearn.analysis.gaussian import (
    choose_ridge,
    conditional_mean,
    moments,
    with_ridge,
)
from bsym_sklearn.data.checks import check_option
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.estimators.covariates import participants
from bsym_sklearn.estimators.decoding import check_masks
from bsym_sklearn.estimators.embedder import stack_connectomes
from bsym_sklearn.estimators.preprocessing import (
    SC_SCALING,
    STANDARDIZE,
    Preprocessing,
    repetition_times,
)
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.reading import ScanReader

Scans = list[np.ndarray | None]
JITTER = 1e-6  # of the variance: keeps smooth, band-passed series solvable
ALPHAS = tuple(10.0**k for k in range(-4, 2))


class Imputer(BaseEstimator):
    """Base of what fills in hidden values: scaling, masks, missing scans.

    What is visible comes back as it is. Scans are scaled as the models scale them, by
    the whole scan, hidden values included.

    Parameters
    ----------
    t_r : float, str or None, default=None
        Repetition time in seconds, or the column that holds it. Scans are resampled
        to the median of `fit`.
    standardize : {"zscore", "robust", "cohort_zscore", "cohort_robust"} or None, \
            default="zscore"
        Scaling of each region's series.

    Attributes
    ----------
    preprocessing_ : Preprocessing
        Fitted scaling.
    n_features_in_ : int
        Regions R.

    Examples
    --------
    >>> class Zeros(Imputer):
    ...     def _fill(self, seen):
    ...         return np.zeros_like(seen)
    >>> X, mask = np.ones((1, 2, 1)), np.ones((2, 1), bool)
    >>> Zeros(standardize=None).fit(X).reconstruct(X, mask=[mask])[0].ravel()
    array([0., 0.])
    """

    modalities_: tuple[str, ...] = ("fmri",)
    # What a subclass has no parameter for.
    t_r: float | str | None = None
    standardize: str | None = None
    sc_scaling: str | None = None

    def __init__(
        self,
        *,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
    ) -> None:
        self.t_r = t_r
        self.standardize = standardize

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from whole scans how to fill in hidden values.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`. Those without the modality
            are passed over.
        y : None
            Ignored.

        Returns
        -------
        self : Imputer

        Raises
        ------
        BrainDataError
            If no scan has the modality, or the scans cannot be used.
        ValueError
            If a parameter is out of range.
        """
        check_option("standardize", self.standardize, (None, *STANDARDIZE))
        check_option("sc_scaling", self.sc_scaling, (None, *SC_SCALING))
        cohort = self._check(X)
        (modality,) = self.modalities_
        if modality not in cohort.modalities:
            raise BrainDataError(
                f"{type(self).__name__} needs {modality!r} in at least one scan. Got "
                f"{list(cohort.modalities)} only. Pass scans that have it."
            )
        self.n_features_in_ = cohort.n_regions
        self.preprocessing_ = Preprocessing.fit(
            cohort,
            modalities=self.modalities_,
            window=None,
            t_r=self.t_r,
            standardize=self.standardize,
            sc_scaling=self.sc_scaling,
            n_gradients=None,
        )
        self._learn(self._reader(cohort))
        return self

    def scaled(self, X: Any, modality: str = "fmri") -> Scans | np.ndarray:
        """Return the scans as they are filled in: scaled.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        modality : {"fmri", "sc"}, default="fmri"
            The one that is filled in.

        Returns
        -------
        list of ndarray of shape (T_i, R), or ndarray of shape (n, R, R)
            None or NaN for scans without the modality.
        """
        return self._stack(self._read(X, modality))

    def reconstruct(
        self, X: Any, *, modality: str = "fmri", mask: Sequence[Any] | None = None
    ) -> Scans | np.ndarray:
        """Return the scans with hidden values filled in.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        modality : {"fmri", "sc"}, default="fmri"
            The one that is filled in.
        mask : sequence of bool ndarray or None, default=None
            One per scan, of shape (T_i, R) or (R, R): True where a value is hidden.
            None hides nothing.

        Returns
        -------
        list of ndarray of shape (T_i, R), or ndarray of shape (n, R, R)
            In the units of :meth:`scaled`. None or NaN for scans without the modality.

        Raises
        ------
        ValueError
            If it fills in another modality, or a mask does not fit.
        """
        cohort = self._check(X)
        scans = self._read(cohort, modality)
        n = self.n_features_in_
        lengths = [n] * len(scans)
        if modality == "fmri":
            lengths = self._reader(cohort).lengths.tolist()
        masks = check_masks(mask, [(length, n) for length in lengths])
        filled: Scans = list(scans)
        for i, scan in enumerate(scans):
            hidden = None if masks is None else masks[i]
            if scan is not None and hidden is not None and hidden.any():
                # NaN, so that nothing hidden can be read by mistake
                seen = np.where(hidden, np.nan, scan)
                filled[i] = np.where(hidden, self._fill(seen), scan)
        return self._stack(filled)

    @abstractmethod
    def _fill(self, seen: np.ndarray) -> np.ndarray:
        """Return a guess of every value of a scan whose hidden values are NaN."""

    def _learn(self, reader: ScanReader) -> None:
        """Learn from scaled scans; the simplest learn nothing."""

    def _check(self, X: Any) -> Cohort:
        """Validate `X`; after `fit`, require its regions."""
        return check_cohort(
            X,
            caller=type(self).__name__,
            constant_regions="mask",
            n_regions=getattr(self, "n_features_in_", None),
        )

    def _reader(self, cohort: Cohort) -> ScanReader:
        """Return a reader of scaled scans."""
        t_r = repetition_times(cohort, self.t_r)
        return self.preprocessing_.reader(cohort, t_r, np.float64)

    def _read(self, X: Any, modality: str) -> Scans:
        """Return scaled scans."""
        check_is_fitted(self)
        check_choice(modality, self.modalities_, "modality")
        reader = self._reader(self._check(X))
        read: Any = reader.fmri if modality == "fmri" else reader.sc
        return [read(i) for i in range(len(reader))]

    def _stack(self, scans: Scans) -> Scans | np.ndarray:
        """Return series as a list and connectomes as an array."""
        if self.modalities_ == ("fmri",):
            return scans
        return stack_connectomes(scans, self.n_features_in_)


class RegionMean(Imputer):
    """Fill in the mean of what is visible of a region.

    A region of which nothing is visible becomes the mean of the others at each time
    point (the global signal), and 0 where nothing is.

    Parameters
    ----------
    t_r, standardize
        See :class:`Imputer`.

    Examples
    --------
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=2, n_regions=3, n_timepoints=8).data
    >>> masks = [np.array([True, False, False]) & np.ones((8, 1), bool)] * 2
    >>> model = RegionMean().fit(X)
    >>> filled = model.reconstruct(X, mask=masks)[0]
    >>> np.testing.assert_allclose(filled[:, 0], filled[:, 1:].mean(axis=1))
    """

    def _fill(self, seen: np.ndarray) -> np.ndarray:
        visible = ~np.isnan(seen)
        known = np.where(visible, seen, 0)
        region_mean = known.sum(0) / np.maximum(visible.sum(0), 1)
        global_signal = known.sum(1) / np.maximum(visible.sum(1), 1)
        return np.where(visible.any(0), region_mean, global_signal[:, None])


class LinearInterpolation(Imputer):
    """Join the visible time points of a region with straight lines.

    The first and last visible values are held towards the ends. A region of which
    nothing is visible becomes 0.

    Parameters
    ----------
    t_r, standardize
        See :class:`Imputer`.

    Examples
    --------
    >>> scan = np.random.default_rng(0).normal(size=(5, 2))
    >>> hidden = np.zeros((5, 2), bool)
    >>> hidden[1] = True
    >>> filled = LinearInterpolation().fit([scan]).reconstruct([scan], mask=[hidden])[0]
    >>> np.testing.assert_allclose(filled[1], (filled[0] + filled[2]) / 2)
    """

    def _fill(self, seen: np.ndarray) -> np.ndarray:
        filled = np.zeros_like(seen)
        time_points = np.arange(len(seen))
        for r, series in enumerate(seen.T):
            visible = ~np.isnan(series)
            if visible.any():
                filled[:, r] = np.interp(
                    time_points, time_points[visible], series[visible]
                )
        return filled


class RidgeRegions(Imputer):
    """Predict hidden regions linearly from those visible at the same time point.

    The conditional mean of a Gaussian whose covariance is pooled over the scans of
    `fit`, with a ridge on its diagonal. It is ridge regression for whichever regions
    are hidden. A time point of which nothing is visible becomes the mean.

    Parameters
    ----------
    alphas : sequence of float, default=(1e-4, 1e-3, ..., 10)
        Ridges to choose from, above 0, as shares of the mean variance. The one that
        predicts each region from all others best is taken, in folds over the
        participants of `fit` (over its scans' halves if there is one participant).
    group_column : str, default="participant_id"
        Column that names the participant.
    t_r, standardize
        See :class:`Imputer`.

    Attributes
    ----------
    alpha_ : float
        Chosen ridge.
    mean_ : ndarray of shape (R,)
        Of the regions.
    covariance_ : ndarray of shape (R, R)
        With the ridge.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> source = rng.normal(size=(4, 200, 1))
    >>> X = list(source + 0.1 * rng.normal(size=(4, 200, 3)))
    >>> mask = np.zeros((200, 3), bool)
    >>> mask[:, 0] = True
    >>> model = RidgeRegions().fit(X[:3])
    >>> filled = model.reconstruct(X[3:], mask=[mask])[0]
    >>> error = (filled - model.scaled(X[3:])[0])[:, 0]
    >>> bool(error.std() < 0.15)
    True
    """

    def __init__(
        self,
        *,
        alphas: Sequence[float] = ALPHAS,
        group_column: str = "participant_id",
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
    ) -> None:
        super().__init__(t_r=t_r, standardize=standardize)
        self.alphas = alphas
        self.group_column = group_column

    def _learn(self, reader: ScanReader) -> None:
        if len(self.alphas) == 0 or min(self.alphas) <= 0:
            raise ValueError(f"alphas must be above 0. Got {self.alphas!r}.")
        groups = participants(reader.cohort, self.group_column, type(self).__name__)
        sums, owners = _pooled_sums(reader, groups)
        mean, covariance = moments(sums)
        self.alpha_ = choose_ridge(sums, owners, self.alphas)
        self.mean_ = mean
        self.covariance_ = with_ridge(covariance, self.alpha_)

    def _fill(self, seen: np.ndarray) -> np.ndarray:
        return self.mean_ + conditional_mean(seen - self.mean_, self.covariance_)


class GaussianProcess(Imputer):
    """Predict hidden time points from visible ones of the same region.

    The conditional mean of a stationary Gaussian process whose autocovariance is that
    of the series of `fit`, averaged over regions and scans. A region of which nothing
    is visible becomes 0.

    Parameters
    ----------
    t_r, standardize
        See :class:`Imputer`.

    Attributes
    ----------
    autocovariance_ : ndarray of shape (n_lags,)
        At lags of 0, 1, ... time points, 0 beyond. Biased estimates (divided by T),
        which keep every covariance matrix positive.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.cumsum(rng.normal(size=(3, 100, 2)), axis=1)
    >>> mask = np.zeros((100, 2), bool)
    >>> mask[50] = True
    >>> model = GaussianProcess().fit(X)
    >>> error = model.reconstruct(X, mask=[mask] * 3)[0] - model.scaled(X)[0]
    >>> bool(np.abs(error[50]).max() < 0.5)
    True
    """

    def _learn(self, reader: ScanReader) -> None:
        n_lags = int(reader.lengths.max())
        total = np.zeros(n_lags)
        for _, scan in _series(reader):
            n = len(scan)
            power = np.abs(np.fft.rfft(scan, 2 * n, axis=0)) ** 2
            total[:n] += np.fft.irfft(power.mean(axis=1), 2 * n)[:n]
        self.autocovariance_ = total / int(reader.lengths.sum())

    def _fill(self, seen: np.ndarray) -> np.ndarray:
        column = np.zeros(len(seen))
        n = min(len(seen), len(self.autocovariance_))
        column[:n] = self.autocovariance_[:n]
        column[0] *= 1 + JITTER
        return conditional_mean(seen.T, toeplitz(column)).T


class MeanEdges(Imputer):
    """Fill in the mean of an edge over the connectomes of `fit`.

    Parameters
    ----------
    sc_scaling : {"log", "linear"} or None, default="log"
        Scaling of the connectomes; see :class:`~bsym_sklearn.data.ConnectomeScaler`.

    Attributes
    ----------
    mean_ : ndarray of shape (R, R)
        Mean of the scaled connectomes.

    Examples
    --------
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=4, n_regions=3, n_timepoints=8).data
    >>> model = MeanEdges().fit(X)
    >>> np.testing.assert_allclose(model.mean_, model.scaled(X, "sc").mean(axis=0))
    """

    modalities_ = ("sc",)

    def __init__(self, *, sc_scaling: str | None = "log") -> None:
        self.sc_scaling = sc_scaling

    def _learn(self, reader: ScanReader) -> None:
        scans = [reader.sc(i) for i in range(len(reader)) if reader.has("sc", i)]
        self.mean_ = np.mean(np.stack([s for s in scans if s is not None]), axis=0)

    def _fill(self, seen: np.ndarray) -> np.ndarray:
        return self.mean_


def _series(reader: ScanReader) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the scans that have fMRI, with their row."""
    for i in range(len(reader)):
        scan = reader.fmri(i)
        if scan is not None:
            yield i, scan


def _pooled_sums(
    reader: ScanReader, groups: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return sums of products (R+1, R+1) of [1, x] per part, and each part's owner."""
    rows = [i for i in range(len(reader)) if reader.has("fmri", i)]
    alone = len(set(groups[rows].tolist())) == 1
    sums: list[np.ndarray] = []
    owners: list[Any] = []
    for i, scan in _series(reader):
        for k, part in enumerate(np.array_split(scan, 2) if alone else [scan]):
            row = np.column_stack([np.ones(len(part)), part])
            sums.append(row.T @ row)
            owners.append(k if alone else groups[i])
    return sums, np.asarray(owners)
