"""BrainSymphony as a regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.callback import with_callbacks
from torch import Tensor

from bsym_sklearn.estimators.supervised import BaseSupervised


class BrainSymphonyRegressor(RegressorMixin, BaseSupervised):
    """Predict a continuous target with a BrainSymphony model.

    The target is standardised inside `fit`; the loss is the squared error.
    Parameters and attributes that are not listed are those of
    :class:`BrainSymphonyEmbedder`.

    Parameters
    ----------
    pretrained, strategy, pretrain_epochs, layer_decay, pooling, max_epochs
        See :class:`BrainSymphonyClassifier`.

    Attributes
    ----------
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target in `fit`.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=12, n_regions=5, n_timepoints=40).data
    >>> age = BrainSymphonyRegressor(dim=8, depth=1, max_epochs=2, random_state=0)
    >>> age.fit(X, X["age"]).predict(X).shape
    (12,)
    """

    _kind = "regression"
    y_mean_: float
    y_scale_: float

    @with_callbacks
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on scans with a target.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Targets, in any unit.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : BrainSymphonyRegressor

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length.
        ValueError
            If a parameter is out of range.
        """
        self._check_parameters()
        going_on = self.warm_start and hasattr(self, "net_")
        cohort = self._check_scans(X, reset=not going_on)
        y = self._check_y(y, len(cohort)).astype(np.float64)
        if not going_on:
            self._standardize_target(y)
        weights = self._sample_weights(sample_weight, len(y))
        return self._fit(
            X,
            y,
            cohort,
            targets=self._encode(y),
            weights=self._as_weights(weights),
            strata=None,
        )

    def partial_fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more epoch on these scans, at the constant rate `lr`.

        Scaling, of the target too, and sizes are fixed by the first call.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Targets.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : BrainSymphonyRegressor
        """
        self._check_parameters()
        first = not hasattr(self, "net_")
        cohort = self._check_scans(X, reset=first)
        y = self._check_y(y, len(cohort)).astype(np.float64)
        if first:
            self._standardize_target(y)
        weights = self._as_weights(self._sample_weights(sample_weight, len(y)))
        return self._partial_fit(cohort, self._encode(y), weights)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted target of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n,)
            In the unit of the target; averaged over the windows of a scan.
        """
        standardized = self._predict(X, lambda batch: self.net_.module_(**batch))
        return standardized[:, 0] * self.y_scale_ + self.y_mean_

    def _n_outputs(self) -> int:
        return 1

    def _standardize_target(self, y: np.ndarray) -> None:
        """Learn the location and scale of the target."""
        self.y_mean_ = float(y.mean())
        self.y_scale_ = float(y.std()) or 1.0

    def _encode(self, y: np.ndarray) -> Tensor:
        """Return the standardised target."""
        return torch.from_numpy((y - self.y_mean_) / self.y_scale_).to(self._float())
