"""Late fusion: models averaged with weights that are chosen inside `fit`.

Shape letters: n scans, K members, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.utils import Tags, _safe_indexing, check_scalar, indexable
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples, check_is_fitted

from bsym_sklearn.data.checks import check_target
from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.covariates import participants
from bsym_sklearn.estimators.strength import inner_splits
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

LOG_TEMPERATURES = (-5.0, 5.0)  # of members' probabilities, natural logarithm
LOWEST_PROBABILITY = 1e-12
Members = Sequence[tuple[str, Any]]


class BaseBlend(_BaseComposition):
    """Fit members, and weights of their average on scans that they did not see."""

    members: Members
    n_inner_folds: int
    group_column: str
    members_: list[Any]
    weights_: np.ndarray
    n_features_in_: int

    def __init__(
        self,
        members: Members,
        *,
        n_inner_folds: int = 3,
        group_column: str = "participant_id",
    ) -> None:
        self.members = members
        self.n_inner_folds = n_inner_folds
        self.group_column = group_column

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with ``deep`` those of the members too.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add ``<member>`` and ``<member>__<parameter>``.

        Returns
        -------
        dict of str to Any
        """
        return self._get_params("members", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, ``<member>__<parameter>`` too.

        Parameters
        ----------
        **params
            See `get_params`.

        Returns
        -------
        self
        """
        return self._set_params("members", **params)

    def _fit_blend(
        self,
        X: Any,
        y: np.ndarray,
        strata: np.ndarray | None,
        output: Callable[[Any, Any], np.ndarray],
        weigh: Callable[[np.ndarray], np.ndarray],
    ) -> Self:
        """Fit the members, and weigh them by what their clones say of unseen scans.

        `output` is what a fitted member says of scans, (n, C); `weigh` makes weights
        (K,) of what all say of the scans they have not seen, (K, n, C).
        """
        check_scalar(self.n_inner_folds, "n_inner_folds", Integral, min_val=2)
        self._validate_names([name for name, _ in self.members])
        who = type(self).__name__
        groups = participants(X, self.group_column, who)
        # First, so that scans which cannot be used are refused before any are chosen.
        self.members_ = [clone(member).fit(X, y) for _, member in self.members]
        splits = inner_splits(groups, strata, self.n_inner_folds)
        if splits is None:
            warnings.warn(
                f"{who} needs at least 2 groups of scans (of each class) to weigh its "
                f"members. Got fewer in {self.group_column!r}. All weigh the same.",
                BrainSymphonyWarning,
                stacklevel=3,
            )
            self.weights_ = np.full(len(self.members), 1 / len(self.members))
        else:
            unseen = [
                _out_of_fold(member, X, y, splits, output) for _, member in self.members
            ]
            self.weights_ = weigh(np.stack(unseen))
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.members_[0], name):
                setattr(self, name, getattr(self.members_[0], name))
        return self


class BlendClassifier(ClassifierMixin, BaseBlend):
    r"""Average the class probabilities of several classifiers.

    Every member is fitted on inner folds first. On the scans that it has not seen, its
    probabilities are brought to the right confidence by one temperature, and the
    weights of all are those that make the truth most likely. With temperatures
    :math:`\tau_k` and weights :math:`w_k \ge 0`, :math:`\sum_k w_k = 1`,

    .. math::
        p(c) = \sum_k w_k \, \mathrm{softmax}_c(\log p_k(c) / \tau_k).

    Inner folds keep a participant's scans together. A member that is worse than
    another gets a small weight instead of an equal one, which is what
    :class:`sklearn.ensemble.VotingClassifier` would do.

    Parameters
    ----------
    members : list of (str, classifier)
        Unfitted, with `predict_proba`; they are cloned.
    n_inner_folds : int, default=3
        Folds within the scans of `fit`, at least 2. Each member is fitted that many
        times and once more.
    group_column : str, default="participant_id"
        Column of X: scans that stay together in the inner folds. Without it, each
        scan is its own group.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    members_ : list of classifier
        Fitted on all scans.
    weights_ : ndarray of shape (n_members,)
        Sum to one.
    temperatures_ : ndarray of shape (n_members,)
        Above 1 where a member was too sure.

    References
    ----------
    .. [1] Wolpert (1992). Stacked generalization. Neural Networks 5, 241-259.
    .. [2] Guo et al. (2017). On calibration of modern neural networks. ICML.

    Examples
    --------
    >>> from bsym_sklearn import BlendClassifier, FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=24, n_regions=5, n_timepoints=40)
    >>> members = [(kind, FeatureClassifier(kind)) for kind in ("tangent", "sc")]
    >>> blend = BlendClassifier(members).fit(cohort.data, cohort.target)
    >>> blend.predict_proba(cohort.data[:1]).shape, round(sum(blend.weights_), 6)
    ((1, 2), np.float64(1.0))
    """

    classes_: np.ndarray
    temperatures_: np.ndarray

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Learn from labelled scans.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Class labels.

        Returns
        -------
        self : BlendClassifier

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length or one class.
        ValueError
            If a parameter is out of range, or two members share a name.
        """
        target = check_target(y, _num_samples(X), self)
        check_classification_targets(target)
        self.__dict__.pop("weights_", None)  # of other classes
        self.classes_, codes = np.unique(target, return_inverse=True)
        if len(self.classes_) < 2:
            raise BrainDataError(
                "BlendClassifier needs at least 2 classes in y. Got 1 class: "
                f"{self.classes_.tolist()}. Check the selection of rows."
            )
        self.temperatures_ = np.ones(len(self.members))

        def weigh(unseen: np.ndarray) -> np.ndarray:
            self.temperatures_ = np.array([_temperature(p, codes) for p in unseen])
            of_truth = self._calibrated(unseen)[:, np.arange(len(codes)), codes]
            return _weights(
                lambda w: -np.log(np.maximum(w @ of_truth, LOWEST_PROBABILITY)).mean(),
                len(unseen),
                len(codes),
            )

        return self._fit_blend(X, target, codes, self._probabilities, weigh)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to one; columns as in `classes_`.
        """
        check_is_fitted(self, "weights_")
        each = np.stack([self._probabilities(member, X) for member in self.members_])
        return np.tensordot(self.weights_, self._calibrated(each), axes=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n,)
            Class labels.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _probabilities(self, member: Any, X: Any) -> np.ndarray:
        """Return a member's probabilities (n, C), 0 for classes it has not seen."""
        said = member.predict_proba(X)
        aligned = np.zeros((len(said), len(self.classes_)))
        aligned[:, np.searchsorted(self.classes_, member.classes_)] = said
        return aligned

    def _calibrated(self, each: np.ndarray) -> np.ndarray:
        """Return probabilities (K, n, C) at the members' temperatures."""
        return np.exp(_cooled(each, self.temperatures_[:, None, None]))


class BlendRegressor(RegressorMixin, BaseBlend):
    """Average the predictions of several regressors.

    The weights, none of them negative and one in sum, minimise the squared error on
    scans of inner folds that the members have not seen.

    Parameters
    ----------
    members : list of (str, regressor)
        Unfitted; they are cloned.
    n_inner_folds, group_column
        See :class:`BlendClassifier`.

    Attributes
    ----------
    members_ : list of regressor
        Fitted on all scans.
    weights_ : ndarray of shape (n_members,)
        Sum to one.

    Examples
    --------
    >>> from bsym_sklearn import BlendRegressor, FeatureRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=24, n_regions=5, n_timepoints=40).data
    >>> members = [(kind, FeatureRegressor(kind)) for kind in ("tangent", "sc")]
    >>> BlendRegressor(members).fit(X, X["age"]).predict(X[:1]).shape
    (1,)
    """

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Learn from scans with a target.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Targets, in any unit.

        Returns
        -------
        self : BlendRegressor

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length.
        ValueError
            If a parameter is out of range, or two members share a name.
        """
        target = check_target(y, _num_samples(X), self).astype(np.float64)
        variance = target.var() or 1.0

        def weigh(unseen: np.ndarray) -> np.ndarray:
            return _weights(
                lambda w: ((w @ unseen[..., 0] - target) ** 2).mean() / variance,
                len(unseen),
                len(target),
            )

        return self._fit_blend(X, target, None, _column, weigh)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted target of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n,)
            In the unit of the target.
        """
        check_is_fitted(self, "weights_")
        return self.weights_ @ np.stack([m.predict(X) for m in self.members_])


def _column(member: Any, X: Any) -> np.ndarray:
    """Return what a regressor says, as one column."""
    return member.predict(X)[:, None]


def _out_of_fold(
    member: Any,
    X: Any,
    y: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
    output: Callable[[Any, Any], np.ndarray],
) -> np.ndarray:
    """Return what clones of a member say of the scans that they have not seen."""
    said: list[np.ndarray] = []
    for train, test in splits:
        fitted = clone(member).fit(_take(X, train), y[train])
        said.append(output(fitted, _take(X, test)))
    order = np.argsort(np.concatenate([test for _, test in splits]))
    return np.concatenate(said)[order]


def _take(X: Any, rows: np.ndarray) -> Any:
    """Return rows of a cohort in any form."""
    if isinstance(X, Cohort):
        return X.take(rows)
    return _safe_indexing(*indexable(X), rows)


def _cooled(probabilities: np.ndarray, temperature: Any) -> np.ndarray:
    """Return log-probabilities at a temperature."""
    logits = np.log(np.maximum(probabilities, LOWEST_PROBABILITY)) / temperature
    return log_softmax(logits, axis=-1)


def _temperature(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Return the temperature that makes the truth most likely."""
    rows = np.arange(len(codes))

    def loss(log_temperature: float) -> float:
        return -_cooled(probabilities, np.exp(log_temperature))[rows, codes].mean()

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES).x))


def _weights(
    loss: Callable[[np.ndarray], float], n_members: int, n_scans: int
) -> np.ndarray:
    """Return the weights of least loss, drawn to equal ones by one scan per member."""

    def penalised(w: np.ndarray) -> float:
        return loss(w) - np.log(np.maximum(w, 1e-6)).sum() / n_scans

    equal = np.full(n_members, 1 / n_members)
    found = minimize(
        penalised,
        equal,
        method="SLSQP",
        bounds=[(0, 1)] * n_members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    weights = np.clip(found.x, 0, 1)
    # beside a member that has diverged, SLSQP may stay where it began
    alone = np.array([loss(w) for w in np.eye(n_members)])
    tried = [weights, 1 / np.maximum(alone, LOWEST_PROBABILITY)]
    return min((w / w.sum() for w in tried), key=penalised)
