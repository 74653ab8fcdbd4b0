"""Confounds and sites, removed with what the training rows teach and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from bsym_sklearn.analysis.design import (
    UNSEEN,
    Design,
    check_features,
    least_squares,
)
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.layers import check_choice


class ConfoundRegressor(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Remove from each feature what the confounds predict linearly.

    With the design :math:`C` of the confounds, centred on the training rows, the
    coefficients :math:`B` minimise :math:`\|X - \bar X - C B\|^2` there, and
    :math:`X - C B` is returned, which keeps the means of the features.

    Parameters
    ----------
    unseen : {"error", "pooled"}, default="error"
        What to do with a category, such as a site, that was not in training: raise, or
        give it the mean effect of the training rows.

    Attributes
    ----------
    coefficients_ : ndarray of shape (n_columns, n_features)
        Effect of each column of the design: numbers as they are, one column for each
        category.
    n_features_in_ : int
        Features F.

    Notes
    -----
    The confounds are metadata of ``fit`` and ``transform``, requested by default, so
    that pipelines route them (``sklearn.set_config(enable_metadata_routing=True)``).
    scikit-learn's scorers do not hand metadata on to a transformer; where a score other
    than that of ``score`` is wanted, wrap it in :class:`AdjustedTransformer`, which
    reads the confounds from the columns of X.

    References
    ----------
    .. [1] Snoek et al. (2019). How to control for confounds in decoding analyses of
       neuroimaging data. NeuroImage 184, 741-760: fit on the training rows of a fold.

    Examples
    --------
    >>> import numpy as np
    >>> age = np.array([20.0, 30.0, 40.0])
    >>> X = np.array([[1.0], [2.0], [3.0]])
    >>> ConfoundRegressor().fit_transform(X, confounds=age).round(6).ravel()
    array([2., 2., 2.])
    """

    __metadata_request__fit = {"confounds": True}  # noqa: RUF012
    __metadata_request__transform = {"confounds": True}  # noqa: RUF012

    n_features_in_: int

    def __init__(self, *, unseen: str = "error") -> None:
        self.unseen = unseen

    def fit(self, X: ArrayLike, y: Any = None, *, confounds: ArrayLike) -> Self:
        """Learn the effects of the confounds.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features of the training rows.
        y : None
            Ignored.
        confounds : DataFrame or array-like of shape (n_rows,) or (n_rows, n_confounds)
            Numbers, or categories in columns of any other kind (strings, booleans,
            pandas categories).

        Returns
        -------
        self : ConfoundRegressor

        Raises
        ------
        BrainDataError
            If a confound is missing in a row.
        ValueError
            If the features are not finite numbers or lengths differ.
        """
        check_choice(self.unseen, UNSEEN, "unseen")
        X = check_features(self, X, reset=True)
        self._encoder = Design("ConfoundRegressor", self.unseen)
        design = self._encoder.fit(confounds)
        check_consistent_length(X, design)
        self.coefficients_ = least_squares(design, X - X.mean(axis=0))
        return self

    def transform(self, X: ArrayLike, *, confounds: ArrayLike) -> np.ndarray:
        """Subtract the effects that were learned.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features; one row is enough.
        confounds : DataFrame or array-like of shape (n_rows,) or (n_rows, n_confounds)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_rows, n_features)

        Raises
        ------
        BrainDataError
            If a confound is missing or, with ``unseen="error"``, a category is new.
        """
        check_is_fitted(self)
        X = check_features(self, X, reset=False)
        design = self._encoder.transform(confounds)
        check_consistent_length(X, design)
        return X - design @ self.coefficients_

    def fit_transform(
        self, X: ArrayLike, y: Any = None, *, confounds: ArrayLike
    ) -> np.ndarray:
        """Learn from the rows and transform them, see `fit`."""
        return self.fit(X, y, confounds=confounds).transform(X, confounds=confounds)


class AdjustedTransformer(TransformerMixin, BaseEstimator):
    """A transformer of scans followed by an adjustment that reads columns of X.

    The confounds and sites of a cohort are columns beside its scans. Both steps learn
    from the rows of `fit` only, so that any scikit-learn tool keeps folds apart.

    Parameters
    ----------
    transformer : estimator
        From X to features, such as an embedder or a pipeline.
    adjustment : estimator
        :class:`ConfoundRegressor`, :class:`~bsym_sklearn.analysis.combat.ComBat`, or
        another that takes metadata in `fit` and `transform`.
    columns : mapping of str to str or list of str
        Which columns of X are handed to the adjustment as which metadata:
        ``{"confounds": ["age", "site"]}`` or ``{"sites": "site"}``.

    Attributes
    ----------
    transformer_, adjustment_ : estimator
        The fitted copies.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> X = pd.DataFrame({"volume": [1.0, 2.0, 3.0], "age": [20, 30, 40]})
    >>> select = FunctionTransformer(lambda X: X[["volume"]])
    >>> adjusted = AdjustedTransformer(
    ...     select, ConfoundRegressor(), {"confounds": "age"}
    ... )
    >>> adjusted.fit_transform(X).round(6).ravel()
    array([2., 2., 2.])
    """

    def __init__(
        self,
        transformer: Any,
        adjustment: Any,
        columns: Mapping[str, str | Sequence[str]],
    ) -> None:
        self.transformer = transformer
        self.adjustment = adjustment
        self.columns = columns

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Fit both steps on the rows of `X`.

        Parameters
        ----------
        X : DataFrame
            A cohort, or any table that `transformer` takes.
        y : array-like of shape (n_rows,) or None
            Handed to `transformer` only: the adjustment must not know the target.

        Returns
        -------
        self : AdjustedTransformer
        """
        self._fit(X, y)
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return the adjusted features (n_rows, n_features) of `X`."""
        check_is_fitted(self)
        features = self.transformer_.transform(X)
        return self.adjustment_.transform(features, **self._metadata(X))

    def fit_transform(self, X: pd.DataFrame, y: Any = None) -> np.ndarray:
        """Fit both steps and return the adjusted features of the same rows."""
        features = self._fit(X, y)
        return self.adjustment_.transform(features, **self._metadata(X))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names that the inner transformer gives its features."""
        check_is_fitted(self)
        return self.transformer_.get_feature_names_out(input_features)

    def _fit(self, X: pd.DataFrame, y: Any) -> Any:
        """Fit both steps and return the features between them."""
        metadata = self._metadata(X)
        self.transformer_ = clone(self.transformer)
        features = self.transformer_.fit_transform(X, y)
        self.adjustment_ = clone(self.adjustment).fit(features, **metadata)
        return features

    def _metadata(self, X: pd.DataFrame) -> dict[str, Any]:
        """Return the columns that the adjustment asks for."""
        for name in self.columns.values():
            names = [name] if isinstance(name, str) else list(name)
            missing = [] if hasattr(X, "columns") else names
            missing = missing or [n for n in names if n not in X.columns]
            if missing:
                raise BrainDataError(
                    f"AdjustedTransformer needs column {missing[0]!r} in X. Got "
                    f"{list(getattr(X, 'columns', [])) or type(X).__name__}. Pass a "
                    "DataFrame that has it beside the scans."
                )
        return {
            key: X[name if isinstance(name, str) else list(name)]
            for key, name in self.columns.items()
        }
