"""Linear models on features of scans: what a network has to beat.

Shape letters: n scans, F features.
"""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import Tags, check_scalar
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
)

from bsym_sklearn.data.checks import check_target
from bsym_sklearn.estimators.covariates import participants
from bsym_sklearn.estimators.features import (
    ConnectivityFeatures,
    ConnectomeFeatures,
    RegionAmplitude,
)
from bsym_sklearn.estimators.strength import (
    ALPHA_GRIDS,
    C_GRID,
    Splits,
    code_error,
    inner_splits,
    log_likelihood,
    unit_rows,
)
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning
from bsym_sklearn.model.layers import check_choice

FEATURES: dict[str, Any] = {
    "correlation": ConnectivityFeatures("correlation"),
    "partial": ConnectivityFeatures("partial correlation"),
    "tangent": ConnectivityFeatures("tangent"),
    "amplitude": RegionAmplitude(),
    "sc": ConnectomeFeatures(),
}


class BaseFeatureModel(BaseEstimator):
    """Features, and a linear model whose strength is chosen inside `fit`."""

    features: Any
    model: str
    n_inner_folds: int
    group_column: str
    pipeline_: Pipeline
    best_params_: dict[str, float]
    n_features_in_: int
    _models: tuple[str, ...]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    def _check_target(self, X: Any, y: Any) -> np.ndarray:
        """Check the parameters, and return `y` as one finite value per scan."""
        check_choice(self.model, self._models, "model")
        check_scalar(self.n_inner_folds, "n_inner_folds", Integral, min_val=2)
        return check_target(y, _num_samples(X), self)

    def _fit_pipeline(
        self, X: Any, y: np.ndarray, weights: np.ndarray | None, strata: Any
    ) -> Self:
        """Fit features and linear model; splits keep `strata` balanced, if given."""
        prepare = Pipeline(
            [
                ("features", _make_features(self.features)),
                ("impute", SimpleImputer(keep_empty_features=True)),
                ("scale", _make_scaler(self.model)),
                # A rotation onto the training rows: a model with an L2 penalty stays
                # the same, in n dimensions instead of thousands.
                ("rotate", PCA(svd_solver="full")),
            ]
        )
        rotated = prepare.fit_transform(X, y)
        groups = participants(X, self.group_column, type(self).__name__)
        if weights is not None:
            counts = weights > 0  # who counts for nothing cannot be a fold
            if strata is None or set(strata[counts]) == set(strata):
                rotated, y, groups = rotated[counts], y[counts], groups[counts]
                strata = None if strata is None else strata[counts]
                weights = weights[counts]
        splits = inner_splits(groups, strata, self.n_inner_folds)
        fit_params = {} if weights is None else {"sample_weight": weights}
        with config_context(enable_metadata_routing=False):  # weights go to all parts
            linear = self._fit_linear(rotated, y, splits, fit_params)
        self.pipeline_ = Pipeline([*prepare.steps, ("linear", linear)])
        features = prepare.named_steps["features"]
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(features, name):
                setattr(self, name, getattr(features, name))
        return self

    def _fit_linear(
        self,
        X: np.ndarray,
        y: np.ndarray,
        splits: Splits | None,
        fit_params: dict[str, np.ndarray],
    ) -> Any:
        """Return the fitted linear model; set `best_params_`."""
        raise NotImplementedError(f"{type(self).__name__}._fit_linear")

    def _choose(self, search: GridSearchCV, *data: Any, **fit_params: Any) -> Any:
        """Return a model of the strength that the inner folds prefer, unfitted."""
        if search.cv is None:
            ((name, values),) = search.param_grid.items()
            self.best_params_ = {name: values[len(values) // 2]}
            warnings.warn(
                f"{type(self).__name__} needs at least 2 groups of scans (of each "
                f"class) to choose {name} inside `fit`. Got fewer in "
                f"{self.group_column!r}. {name}={self.best_params_[name]:g} is taken.",
                BrainSymphonyWarning,
                stacklevel=5,
            )
        else:
            search.fit(*data, **fit_params)
            self.best_params_ = search.best_params_
        return clone(search.estimator).set_params(**self.best_params_)


class FeatureClassifier(ClassifierMixin, BaseFeatureModel):
    """Classify scans with a linear model on features such as connectivity.

    Features are standardised, and the strength of regularisation is chosen in `fit` by
    folds that keep a participant's scans together.

    Parameters
    ----------
    features : str or transformer, default="correlation"
        ``"correlation"``, ``"partial"``, ``"tangent"``, ``"amplitude"``, ``"sc"`` or
        several side by side, such as ``"correlation+sc"``; or any transformer of
        cohorts, such as :class:`BrainSymphonyEmbedder`, which is cloned.
    model : {"logistic", "ridge", "kernel_ridge"}, default="logistic"
        Logistic regression; ridge regression on the classes; or that with the
        correlation of two scans' features as the kernel [1]_. The scores of the latter
        two become probabilities by one temperature, fitted on scores from inner folds.
    n_inner_folds : int, default=3
        Folds within the scans of `fit`, at least 2; fewer where a class has fewer
        groups. With one group the middle of the grid is taken, with a warning.
    group_column : str, default="participant_id"
        Column of X: scans that stay together in the inner folds. Without it, each
        scan is its own group.
    class_weight : "balanced", dict or None, default=None
        Weight of each class in the loss.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    pipeline_ : Pipeline
        Steps ``"features"``, ``"impute"`` (the mean where a scan lacks a modality),
        ``"scale"``, ``"rotate"`` (onto principal components, all of them) and
        ``"linear"``, whose classes are the places of labels in `classes_`.
    best_params_ : dict
        The strength that was chosen.

    Notes
    -----
    Features, scaling and rotation are fitted once, on all scans of `fit`, before the
    inner folds; no target enters them. Inner folds are compared by the likelihood of
    the classes (logistic), or by the squared error of their codes.

    References
    ----------
    .. [1] He et al. (2020). Deep neural networks and kernel regression achieve
       comparable accuracies for functional connectivity prediction of behavior and
       demographics. NeuroImage 206, 116276.

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> model = FeatureClassifier("tangent+sc").fit(cohort.data, cohort.target)
    >>> model.predict_proba(cohort.data[:1]).shape
    (1, 2)
    """

    classes_: np.ndarray
    _models = ("logistic", "ridge", "kernel_ridge")

    def __init__(
        self,
        features: Any = "correlation",
        *,
        model: str = "logistic",
        n_inner_folds: int = 3,
        group_column: str = "participant_id",
        class_weight: str | dict[Any, float] | None = None,
    ) -> None:
        self.features = features
        self.model = model
        self.n_inner_folds = n_inner_folds
        self.group_column = group_column
        self.class_weight = class_weight

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from labelled scans.

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
        self : FeatureClassifier

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length or one class.
        ValueError
            If a parameter is out of range.
        """
        target = self._check_target(X, y)
        check_classification_targets(target)
        self.__dict__.pop("pipeline_", None)  # of other classes
        self.classes_, codes = np.unique(target, return_inverse=True)
        if len(self.classes_) < 2:
            raise BrainDataError(
                "FeatureClassifier needs at least 2 classes in y. Got 1 class: "
                f"{self.classes_.tolist()}. Check the selection of rows."
            )
        weights = _check_weights(sample_weight, len(target))
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, target)
            weights = by_class if weights is None else weights * by_class
        # Numbers from 0 on: scikit-learn's temperature reads scores by the label itself
        # where that is a number, and past their end for labels such as 1 and 2.
        return self._fit_pipeline(X, codes, weights, strata=codes)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted class of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`; one is enough.

        Returns
        -------
        ndarray of shape (n,)
            Class labels.
        """
        check_is_fitted(self, "pipeline_")
        return self.classes_[self.pipeline_.predict(X)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`; one is enough.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to one; columns as in `classes_`.
        """
        check_is_fitted(self, "pipeline_")
        return self.pipeline_.predict_proba(X)

    def _fit_linear(
        self,
        X: np.ndarray,
        y: np.ndarray,
        splits: Splits | None,
        fit_params: dict[str, np.ndarray],
    ) -> Any:
        """Return the fitted linear model."""
        if self.model == "logistic":
            search = GridSearchCV(
                LogisticRegression(max_iter=2000),
                {"C": C_GRID},
                scoring=log_likelihood,
                cv=splits,
                refit=False,
            )
            return self._choose(search, X, y, **fit_params).fit(X, y, **fit_params)
        search = GridSearchCV(
            RidgeClassifier(),
            {"alpha": ALPHA_GRIDS[self.model]},
            scoring=code_error,
            cv=splits,
            refit=False,
        )
        rows = np.arange(len(y))
        calibrated = CalibratedClassifierCV(
            self._choose(search, X, y, **fit_params),
            method="temperature",  # which changes no decision
            cv=splits or [(rows, rows)],
            ensemble=False,
        )
        return calibrated.fit(X, y, **fit_params)


class FeatureRegressor(RegressorMixin, BaseFeatureModel):
    """Predict a number per scan with a linear model on features such as connectivity.

    Parameters
    ----------
    features : str or transformer, default="correlation"
        See :class:`FeatureClassifier`.
    model : {"ridge", "kernel_ridge"}, default="ridge"
        Ridge regression, or that with the correlation of two scans' features as the
        kernel.
    n_inner_folds, group_column
        See :class:`FeatureClassifier`.

    Attributes
    ----------
    pipeline_ : Pipeline
        See :class:`FeatureClassifier`.
    best_params_ : dict
        The strength that was chosen, by squared error.

    Examples
    --------
    >>> from bsym_sklearn import FeatureRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=12, n_regions=5, n_timepoints=40).data
    >>> FeatureRegressor("correlation").fit(X, X["age"]).predict(X[:1]).shape
    (1,)
    """

    _models = ("ridge", "kernel_ridge")

    def __init__(
        self,
        features: Any = "correlation",
        *,
        model: str = "ridge",
        n_inner_folds: int = 3,
        group_column: str = "participant_id",
    ) -> None:
        self.features = features
        self.model = model
        self.n_inner_folds = n_inner_folds
        self.group_column = group_column

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from scans with a target.

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
        self : FeatureRegressor

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length.
        ValueError
            If a parameter is out of range.
        """
        target = self._check_target(X, y).astype(np.float64)
        weights = _check_weights(sample_weight, len(target))
        return self._fit_pipeline(X, target, weights, strata=None)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted number of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`; one is enough.

        Returns
        -------
        ndarray of shape (n,)
            In the unit of the target.
        """
        check_is_fitted(self, "pipeline_")
        return self.pipeline_.predict(X)

    def _fit_linear(
        self,
        X: np.ndarray,
        y: np.ndarray,
        splits: Splits | None,
        fit_params: dict[str, np.ndarray],
    ) -> Any:
        """Return the fitted linear model."""
        search = GridSearchCV(
            Ridge(),
            {"alpha": ALPHA_GRIDS[self.model]},
            scoring="neg_mean_squared_error",
            cv=splits,
            refit=False,
        )
        return self._choose(search, X, y, **fit_params).fit(X, y, **fit_params)


def _make_features(features: Any) -> Any:
    """Return an unfitted transformer of cohorts."""
    if not isinstance(features, str):
        return clone(features)
    names = features.split("+")
    for name in names:
        check_choice(name, tuple(FEATURES), "features")
    if len(names) == 1:
        return clone(FEATURES[features])
    return FeatureUnion([(name, clone(FEATURES[name])) for name in names])


def _make_scaler(model: str) -> Any:
    """Return what makes features comparable."""
    if model == "kernel_ridge":
        # The correlation of two scans is the product of their rows of mean 0 and norm
        # 1: ridge regression on such rows is kernel ridge regression with that kernel.
        return FunctionTransformer(unit_rows, feature_names_out="one-to-one")
    return StandardScaler()


def _check_weights(sample_weight: Any, n_scans: int) -> np.ndarray | None:
    """Return checked weights, or None for equal ones."""
    if sample_weight is None:
        return None
    return _check_sample_weight(
        sample_weight, np.zeros((n_scans, 1)), ensure_non_negative=True
    )
