"""Confounds as numbers: the design that linear adjustments share.

Shape letters: n rows, F features, Q columns of a design.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import validate_data

from bsym_sklearn.exceptions import BrainDataError

UNSEEN = ("error", "pooled")


class Design:
    """Turn confounds into numbers, centred on the rows of `fit`.

    Quantities stay as they are; a column of any other kind gives one column for each
    of its categories.

    Parameters
    ----------
    caller : str
        Name used in error messages.
    unseen : {"error", "pooled"}
        Raise for a category that was not in `fit`, or give it the mean design.

    Examples
    --------
    >>> design = Design("Example", "pooled")
    >>> design.fit(pd.DataFrame({"age": [20, 40], "site": ["a", "b"]}))
    array([[-10. ,   0.5,  -0.5],
           [ 10. ,  -0.5,   0.5]])
    >>> design.transform(pd.DataFrame({"age": [30], "site": ["c"]}))
    array([[0., 0., 0.]])
    """

    def __init__(self, caller: str, unseen: str) -> None:
        self.caller = caller
        self.unseen = unseen

    def fit(self, values: ArrayLike) -> np.ndarray:
        """Learn columns, categories and centres; return the design (n, Q)."""
        table = self._table(values)
        self.columns = list(table.columns)
        self.categories = {
            name: None if _is_number(column) else sorted(column.unique(), key=str)
            for name, column in table.items()
        }
        raw = self._encode(table)
        # The mean of equal numbers may differ from them by rounding.
        constant = np.ptp(raw, axis=0) == 0
        self.centre = np.where(constant, raw[0], raw.mean(axis=0))
        return raw - self.centre

    def transform(self, values: ArrayLike) -> np.ndarray:
        """Return the design (n, Q) of other rows."""
        table = self._table(values)
        if list(table.columns) != self.columns:
            raise ValueError(
                f"{self.caller} was fitted on {self.columns} and needs the same "
                f"columns. Got {list(table.columns)}."
            )
        return np.nan_to_num(self._encode(table) - self.centre, nan=0.0)

    def _table(self, values: ArrayLike) -> pd.DataFrame:
        """Return `values` as a table without missing cells."""
        table = pd.DataFrame(values).infer_objects()
        missing = table.isna().to_numpy()
        if missing.any():
            row, column = np.argwhere(missing)[0]
            raise BrainDataError(
                f"{self.caller} needs {table.columns[column]!r} in every row. Got "
                f"none, first in scan {row}. Fill it in or leave the scan out."
            )
        return table

    def _encode(self, table: pd.DataFrame) -> np.ndarray:
        """Return the columns as numbers (n, Q); NaN for a category without effect."""
        parts = []
        for name, column in table.items():
            categories = self.categories[name]
            if categories is None:
                parts.append(column.to_numpy(dtype=float)[:, None])
                continue
            codes = pd.Index(categories).get_indexer(column)
            if (codes < 0).any() and self.unseen == "error":
                row = int(np.argmax(codes < 0))
                raise unseen_error(self.caller, name, column.iloc[row], row)
            one_hot = np.eye(len(categories))[codes]
            one_hot[codes < 0] = np.nan
            parts.append(one_hot)
        return np.concatenate(parts, axis=1)


def unseen_error(caller: str, name: Any, value: Any, row: int) -> BrainDataError:
    """Return the error for a category that was not in training.

    Examples
    --------
    >>> unseen_error("ComBat", "site", "oslo", 3).args[0][:44]
    "ComBat needs a 'site' that was in training. "
    """
    value = np.asarray(value).item()  # without the type of numpy
    return BrainDataError(
        f"{caller} needs a {name!r} that was in training. Got {value!r}, first in scan "
        f"{row}. Leave the scan out, or treat it as an average one with 'pooled'."
    )


def _is_number(column: pd.Series) -> bool:
    """Say whether a column is a quantity rather than a category."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(
        column
    )


def check_features(estimator: Any, X: ArrayLike, *, reset: bool) -> np.ndarray:
    """Return `X` as a finite table of float64, its names and width as in `fit`.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> check_features(BaseEstimator(), [[1, 2]], reset=True)
    array([[1., 2.]])
    """
    return validate_data(estimator, X, reset=reset, dtype=np.float64)


def least_squares(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the smallest coefficients that fit best, whatever the units.

    Parameters
    ----------
    design : ndarray of shape (n_rows, n_columns)
        Columns may follow from each other or be constant at zero.
    target : ndarray of shape (n_rows, n_features)
        What to fit.

    Returns
    -------
    ndarray of shape (n_columns, n_features)

    Examples
    --------
    >>> least_squares(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]])).round(6)
    array([[2.]])
    """
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = np.inf
    return np.linalg.lstsq(design / scale, target, rcond=None)[0] / scale[:, None]
