"""Every accepted form of X -> columns of cells, and new cells -> the same form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from skorch.helper import SliceDict
from torch import Tensor, from_numpy

from bsym_sklearn.data.recording import is_path, tensor_to_array
from bsym_sklearn.exceptions import BrainDataError

MODALITIES = ("fmri", "sc")
ACCEPTED_FORMS = (
    "a DataFrame with the columns 'fmri' and/or 'sc', a list, Series or object array "
    "of (n_timepoints, n_regions) arrays or paths, an (n_scans, n_timepoints, "
    "n_regions) array or tensor, skorch's SliceDict(fmri=..., sc=...), or a 2-D "
    "numeric array"
)


@dataclass
class Columns:
    """The two modality columns of an X, and what lies beside them."""

    fmri: list[Any]
    sc: list[Any]
    index: pd.Index | None = None
    covariates: pd.DataFrame | None = None
    regions: pd.DataFrame | None = None


def is_table(X: Any, *, fmri_column: str = "fmri", sc_column: str = "sc") -> bool:
    """Say if X is to be read as scikit-learn's 2-D table.

    A table is n scans of one time point: one row per scan, one column per region.
    Sparse matrices and 1-D numbers count as tables too, so that whoever asks can let
    scikit-learn refuse them with its own words.

    Parameters
    ----------
    X : object
        Anything a user may pass as X.
    fmri_column, sc_column : str, default="fmri", "sc"
        Columns that make a DataFrame a cohort.

    Returns
    -------
    table : bool
        True for a table.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import is_table
    >>> is_table(np.zeros((5, 3))), is_table([np.zeros((5, 3))])
    (True, False)
    """
    if issparse(X):  # before dict: scipy's DOK matrices are dicts
        return True
    if isinstance(X, Tensor):
        return X.ndim < 3
    if isinstance(X, pd.DataFrame):
        has_modality = fmri_column in X.columns or sc_column in X.columns
        return not has_modality and all(map(pd.api.types.is_numeric_dtype, X.dtypes))
    if isinstance(X, pd.Series):
        return bool(pd.api.types.is_numeric_dtype(X.dtype))
    if isinstance(X, np.ndarray):
        return X.ndim == 2 or (X.ndim < 2 and not _is_column_of_cells(X))
    if isinstance(X, list | tuple):
        return len(X) > 0 and not _is_column_of_cells(X)
    return hasattr(X, "__array__") and getattr(X, "ndim", 2) < 3


def unpack(
    X: Any,
    *,
    caller: str,
    fmri_column: str = "fmri",
    sc_column: str = "sc",
    bare: str = "fmri",
) -> Columns:
    """Return the columns of any accepted X that is neither a table nor a Cohort.

    `bare` says which modality a list, Series or array without column names holds.
    """
    if isinstance(X, pd.DataFrame):
        return _unpack_frame(X, caller, fmri_column, sc_column)
    if isinstance(X, SliceDict):
        return _unpack_slice_dict(X, caller, fmri_column, sc_column)
    if isinstance(X, Tensor):
        X = tensor_to_array(X)
    is_array = isinstance(X, np.ndarray) and X.ndim in (1, 3)
    if not is_array and not isinstance(X, list | tuple | pd.Series):
        raise TypeError(
            f"{caller} needs X in a form that it knows. Got {_kind(X)}. Pass "
            f"{ACCEPTED_FORMS}."
        )
    cells = list(X)
    missing = [None] * len(cells)
    index = X.index if isinstance(X, pd.Series) else None
    if bare == "sc":
        return Columns(fmri=missing, sc=cells, index=index)
    return Columns(fmri=cells, sc=missing, index=index)


def as_object_array(cells: Sequence[Any]) -> np.ndarray:
    """Return a 1-D array of the cells (numpy would stack cells of one shape)."""
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = cell
    return column


def as_column(cells: Sequence[Any], index: pd.Index) -> pd.Series:
    """Return a Series of the cells; pandas would make text and None text and NaN."""
    return pd.Series(as_object_array(cells), index=index, dtype=object)


def replace_cells(X: Any, cells: Sequence[Any], *, column: str) -> Any:
    """Return X with one modality's cells replaced, in the form that X has.

    Index, covariates, other columns and `attrs` stay as they are; X is not changed.
    """
    if isinstance(X, pd.DataFrame):
        if column not in X.columns:
            return X.copy()
        return X.assign(**{column: as_column(cells, X.index)})
    if isinstance(X, SliceDict):
        if column not in X.keys():  # noqa: SIM118  (SliceDict is no plain dict)
            return SliceDict(**X)
        return SliceDict(**{**X, column: _like(X[column], cells)})
    if isinstance(X, pd.Series):
        return as_column(cells, X.index).rename(X.name)
    return _like(X, cells)


def _like(X: Any, cells: Sequence[Any]) -> Any:
    """Return cells as a list, tuple, stacked array, tensor or object array, as X is."""
    if isinstance(X, tuple):
        return tuple(cells)
    if isinstance(X, Tensor):
        return from_numpy(np.stack(cells))
    if isinstance(X, np.ndarray):
        return np.stack(cells) if X.ndim == 3 else as_object_array(cells)
    return list(cells)


def _kind(X: Any) -> str:
    if isinstance(X, dict):
        return f"{type(X).__name__}, which scikit-learn cannot split"
    if is_path(X):
        return f"the text or path {str(X)!r} (a cohort folder is read by load_cohort)"
    shape = getattr(X, "shape", None)
    return type(X).__name__ if shape is None else f"{type(X).__name__} of shape {shape}"


def _is_column_of_cells(cells: Any) -> bool:
    """Say if a sequence holds scans, one per element, rather than numbers or rows."""
    return any(
        is_path(cell) or cell is None or cell is pd.NA or _n_dims(cell) > 1
        for cell in cells
    )


def _n_dims(cell: Any) -> int:
    """Count dimensions, through nested lists too, without converting them."""
    if isinstance(cell, list | tuple):
        return 1 + (_n_dims(cell[0]) if len(cell) else 0)
    return int(getattr(cell, "ndim", 0))


def _unpack_frame(
    X: pd.DataFrame, caller: str, fmri_column: str, sc_column: str
) -> Columns:
    columns = {"fmri": fmri_column, "sc": sc_column}
    present = [name for name in columns.values() if name in X.columns]
    if not present:
        raise BrainDataError(
            f"{caller} needs a column {fmri_column!r} or {sc_column!r}. Got the "
            f"columns {list(X.columns)[:8]}. Rename the column that holds the scans."
        )
    twice = [name for name in present if isinstance(X[name], pd.DataFrame)]
    if twice:
        raise BrainDataError(
            f"{caller} needs one column {twice[0]!r}. Got several of that name. "
            "Rename or drop all but one."
        )
    missing = [None] * len(X)
    cells = {
        modality: X[name].tolist() if name in present else missing
        for modality, name in columns.items()
    }
    regions = X.attrs.get("regions")
    if regions is not None and not isinstance(regions, pd.DataFrame):
        raise BrainDataError(
            f"{caller} needs a DataFrame in attrs['regions']. Got "
            f"{type(regions).__name__}. Store a table with one row per region."
        )
    return Columns(
        **cells, index=X.index, covariates=X.drop(columns=present), regions=regions
    )


def _unpack_slice_dict(
    X: SliceDict, caller: str, fmri_column: str, sc_column: str
) -> Columns:
    names = list(X.keys())
    if fmri_column not in names and sc_column not in names:
        raise BrainDataError(
            f"{caller} needs an entry {fmri_column!r} or {sc_column!r}. Got the "
            f"entries {names}. Rename the entry that holds the scans."
        )
    missing = [None] * len(X)
    others = {
        name: list(X[name]) for name in names if name not in (fmri_column, sc_column)
    }
    return Columns(
        fmri=list(X[fmri_column]) if fmri_column in names else missing,
        sc=list(X[sc_column]) if sc_column in names else missing,
        covariates=pd.DataFrame(others, index=range(len(X))),
    )
