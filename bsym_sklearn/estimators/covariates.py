"""What lies beside the scans: participants, age, site, motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.validation import _num_samples, check_is_fitted

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.data.containers import MODALITIES
from bsym_sklearn.exceptions import BrainDataError


class ConfoundFeatures(TransformerMixin, BaseEstimator):
    """Columns beside the scans as numbers: what predicts without a look at the brain.

    Missing numbers become the mean of `fit`. Every other column has a feature per word
    of `fit`; a missing word counts as one, and an unseen one is 0 in all of them.
    Numbers that are codes, such as those of sites, need to be cast to text.

    Parameters
    ----------
    columns : sequence of str
        Which columns of X.

    Attributes
    ----------
    encoder_ : ColumnTransformer
        Fitted on the rows of `fit`.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn import ConfoundFeatures
    >>> X = pd.DataFrame({"age": [20.0, None, 40.0], "site": ["a", "b", "a"]})
    >>> confounds = ConfoundFeatures(["age", "site"])
    >>> confounds.fit_transform(X)
    array([[20.,  1.,  0.],
           [30.,  0.,  1.],
           [40.,  1.,  0.]])
    >>> confounds.get_feature_names_out()
    array(['age', 'site_a', 'site_b'], dtype=object)
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn means and words.

        Parameters
        ----------
        X : DataFrame, SliceDict or Cohort of n rows
            With all of the columns.
        y : None
            Ignored.

        Returns
        -------
        self : ConfoundFeatures

        Raises
        ------
        BrainDataError
            If a column is missing.
        ValueError
            If no column is asked for.
        """
        table = self._select(X)
        numbers = [
            name
            for name, values in table.items()
            if pd.api.types.is_numeric_dtype(values)
            and not pd.api.types.is_bool_dtype(values)
        ]
        words = [name for name in table if name not in numbers]
        self._words = words
        self.encoder_ = ColumnTransformer(
            [
                ("numbers", SimpleImputer(keep_empty_features=True), numbers),
                (
                    "words",
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                    words,
                ),
            ],
            verbose_feature_names_out=False,
        ).fit(self._as_text(table))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the confounds as numbers.

        Parameters
        ----------
        X : DataFrame, SliceDict or Cohort of n rows
            With all of the columns.

        Returns
        -------
        ndarray of shape (n, n_features)
            Numbers first, then one column per word.
        """
        check_is_fitted(self)
        return self.encoder_.transform(self._as_text(self._select(X)))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features.

        Parameters
        ----------
        input_features : None
            Ignored; the names come from the columns.

        Returns
        -------
        ndarray of str objects of shape (n_features,)
            ``"<column>"`` or ``"<column>_<word>"``.
        """
        check_is_fitted(self)
        return self.encoder_.get_feature_names_out()

    def _as_text(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with its words as text."""
        return table.astype(dict.fromkeys(self._words, str)) if self._words else table

    def _select(self, X: Any) -> pd.DataFrame:
        """Return the columns of `X`."""
        columns = list(self.columns)
        if not columns:
            raise ValueError(
                "ConfoundFeatures needs at least one column. Got none. Name columns "
                "of X."
            )
        table = covariates(X)
        missing = [name for name in columns if name not in table]
        if missing:
            raise BrainDataError(
                f"ConfoundFeatures needs the column {missing[0]!r}. Got "
                f"{type(X).__name__} with {list(table)[:8]}. Add it, or leave it out "
                "of `columns`."
            )
        return table[columns]


def covariates(X: Any) -> pd.DataFrame:
    """Return the columns of `X` beside the scans; none if its columns have no names."""
    if isinstance(X, Cohort):
        return pd.DataFrame() if X.covariates is None else X.covariates
    if isinstance(X, pd.DataFrame):
        return X.drop(columns=list(MODALITIES), errors="ignore")
    if has_columns(X):
        names = [name for name in X.keys() if name not in MODALITIES]  # noqa: SIM118
        return pd.DataFrame({name: list(X[name]) for name in names})
    return pd.DataFrame()


def participants(X: Any, column: str, who: str) -> np.ndarray:
    """Return the participant of each scan, or its row number without that column."""
    table = covariates(X)
    if column not in table:
        return np.arange(_num_samples(X))
    names = table[column]
    if names.isna().any():
        raise BrainDataError(
            f"{who} needs {column!r} in every row, to keep a participant's scans "
            f"together. Got none, first in scan {int(names.isna().argmax())}. Fill it "
            "in, or drop the column."
        )
    return names.astype(str).to_numpy()


def has_columns(X: Any) -> bool:
    """Say if `X` is a DataFrame or a SliceDict."""
    plain = type(X) is dict or isinstance(X, pd.Series) or issparse(X)
    return hasattr(X, "keys") and not plain
