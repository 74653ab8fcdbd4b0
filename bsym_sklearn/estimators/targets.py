"""Fitting and predicting a target, whatever the network.

Classifiers and regressors put one of the two mixins here before the class that
holds their constructor and makes their network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.callback import with_callbacks
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor

from bsym_sklearn.data.checks import check_target
from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.base import BaseBrainEstimator
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.training.callbacks import EpochCallbacks


class TargetMixin(BaseBrainEstimator):
    """Check a target and weights, and train a task on them."""

    _kind: str  # of loss: "classification" or "regression"
    seed_: int
    n_partial_fits_: int

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _check_y(self, y: Any, n_scans: int) -> np.ndarray:
        """Return `y` as one finite value per scan."""
        return check_target(y, n_scans, self)

    def _sample_weights(self, sample_weight: Any, n_scans: int) -> np.ndarray | None:
        """Return checked weights, or None for equal ones."""
        if sample_weight is None:
            return None
        return _check_sample_weight(
            sample_weight, np.zeros((n_scans, 1)), ensure_non_negative=True
        )

    def _as_weights(self, weights: np.ndarray | None) -> Tensor | None:
        """Return weights of mean one as a tensor."""
        if weights is None:
            return None
        return torch.from_numpy(weights / weights.mean()).to(self._float())

    def _float(self) -> torch.dtype:
        """Return the type of targets and weights."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _fit(
        self,
        X: Any,
        y: Any,
        cohort: Cohort,
        targets: Tensor,
        weights: Tensor | None,
        strata: np.ndarray | None,
    ) -> Self:
        """Pretrain if asked for, then train on the targets."""
        self.seed_ = seed = self._draw_seed()
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        task = self._initial_task(cohort, seed)
        going_on = self.warm_start and hasattr(self, "net_")
        self._remember(cohort, going_on=going_on)
        self.net_ = self._train(
            task,
            cohort,
            seed=seed,
            max_epochs=self.max_epochs,
            description=self._description(),
            targets=targets,
            weights=weights,
            strata=strata,
            lr_scales=self._lr_scales(task),
            callbacks=[EpochCallbacks(self, context, X, y)],
        )
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _partial_fit(
        self, cohort: Cohort, targets: Tensor, weights: Tensor | None
    ) -> Self:
        """Train for one epoch on these scans, from where training stands."""
        first = not hasattr(self, "net_")
        if first:
            self.seed_ = self._draw_seed()
            task = self._initial_task(cohort, self.seed_)
            self.n_partial_fits_ = 0
        else:
            task = self.net_.module_
            self.n_partial_fits_ = getattr(self, "n_partial_fits_", 0) + 1
        self._remember(cohort, going_on=not first)
        self.net_ = self._train_one_epoch(
            task,
            cohort,
            seed=self.seed_ + self.n_partial_fits_,
            targets=targets,
            weights=weights,
            net=None if first else self.net_,
        )
        return self


class ScanClassifierMixin(ClassifierMixin, TargetMixin):
    """Classify scans."""

    _kind = "classification"
    classes_: np.ndarray
    class_weight: Any

    @with_callbacks
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on labelled scans.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Class labels.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : the same estimator

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length or one class.
        ValueError
            If a parameter is out of range.
        """
        self._check_parameters()
        going_on = self.warm_start and hasattr(self, "net_")
        cohort = self._check_scans(X, reset=not going_on)
        y = self._check_classes(y, len(cohort))
        classes = np.unique(y)
        if len(classes) < 2:
            raise BrainDataError(
                f"{type(self).__name__} needs at least 2 classes in y. Got 1 class: "
                f"{classes.tolist()}. Check the selection of rows."
            )
        if not going_on:
            self._forget_fit()
            self.classes_ = classes
        codes = self._encode(y)
        return self._fit(
            X,
            y,
            cohort,
            targets=torch.from_numpy(codes),
            weights=self._weights(y, sample_weight),
            strata=codes,
        )

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one more epoch on these scans, at the constant rate `lr`.

        Scaling and sizes are fixed by the first call.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Class labels.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels that will come; by default those of the first call.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : the same estimator
        """
        self._check_parameters()
        first = not hasattr(self, "net_")
        cohort = self._check_scans(X, reset=first)
        y = self._check_classes(y, len(cohort))
        if first:
            self.classes_ = np.unique(y if classes is None else np.asarray(classes))
        targets = torch.from_numpy(self._encode(y))
        return self._partial_fit(cohort, targets, self._weights(y, sample_weight))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to one; columns as in `classes_`. Averaged over the windows
            of a scan.
        """
        return self._predict(
            X, lambda batch: self.net_.module_(**batch).double().softmax(1)
        )

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n,)
        """
        most_probable = self.predict_proba(X).argmax(1)
        return self.classes_[most_probable]

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _check_classes(self, y: Any, n_scans: int) -> np.ndarray:
        """Return class labels, one per scan."""
        y = self._check_y(y, n_scans)
        check_classification_targets(y)
        return y

    def _encode(self, y: np.ndarray) -> np.ndarray:
        """Return class codes as int64."""
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise BrainDataError(
                f"{type(self).__name__} needs labels among {self.classes_.tolist()}. "
                f"Got {unknown.tolist()[:3]}. Pass all `classes` in the first call."
            )
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _weights(self, y: np.ndarray, sample_weight: Any) -> Tensor | None:
        """Return the product of sample and class weights, of mean one."""
        weights = self._sample_weights(sample_weight, len(y))
        if self.class_weight is not None:
            # classes that this call lacks count as they would alone
            present = np.unique(y)
            class_weight = self.class_weight
            if isinstance(class_weight, Mapping):
                class_weight = {c: class_weight.get(c, 1) for c in present.tolist()}
            by_class = compute_class_weight(class_weight, classes=present, y=y)
            by_scan = by_class[np.searchsorted(present, y)]
            weights = by_scan if weights is None else weights * by_scan
        return self._as_weights(weights)


class ScanRegressorMixin(RegressorMixin, TargetMixin):
    """Predict a number per scan."""

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
        self : the same estimator

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
        weights = self._sample_weights(sample_weight, len(y))
        if not going_on:
            self._forget_fit()
            self._standardize_target(y, weights)
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
        self : the same estimator
        """
        self._check_parameters()
        first = not hasattr(self, "net_")
        cohort = self._check_scans(X, reset=first)
        y = self._check_y(y, len(cohort)).astype(np.float64)
        weights = self._sample_weights(sample_weight, len(y))
        if first:
            self._standardize_target(y, weights)
        return self._partial_fit(cohort, self._encode(y), self._as_weights(weights))

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

    def _standardize_target(self, y: np.ndarray, weights: np.ndarray | None) -> None:
        """Learn the location and scale of the target, by weight."""
        self.y_mean_ = float(y.mean())
        spread = y.std()
        if weights is not None and np.ptp(weights) > 0:
            self.y_mean_ = float(np.average(y, weights=weights))
            spread = np.average((y - self.y_mean_) ** 2, weights=weights) ** 0.5
        self.y_scale_ = float(spread) or 1.0

    def _encode(self, y: np.ndarray) -> Tensor:
        """Return the standardised target."""
        return torch.from_numpy((y - self.y_mean_) / self.y_scale_).to(self._float())
