"""A 2-D numeric X, read as scans of one time point."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from bsym_sklearn.data.recording import tensor_to_array
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

# When a table is probably one participant's series: enough rows, and rows that
# resemble their neighbours. Preprocessed BOLD mostly has lag-1 autocorrelations of .5
# to .9. Rows sorted by a class do too, but steps between independent rows have -.5.
SERIES_MIN_ROWS = 50
SERIES_AUTOCORRELATION = 0.5
SERIES_STEP_AUTOCORRELATION = -0.38


def check_table(X: Any, *, caller: str) -> np.ndarray:
    """Return a 2-D table as a numeric array, or raise.

    Warns when its rows resemble their neighbours, as the time points of one scan do.
    """
    values = _as_array(X, caller)
    if values.dtype.kind not in "biuf" or values.ndim != 2 or 0 in values.shape:
        raise BrainDataError(
            f"{caller} needs a 2-D table of numbers, one row per scan and one column "
            f"per region. Got shape {values.shape} and dtype {values.dtype}. Pass "
            "(n_scans, n_regions) numbers, or a list with one array per scan."
        )
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise BrainDataError(
            f"{caller} needs finite values in a 2-D table. Got NaN or infinity in "
            f"column {column}, first in scan {row}. Interpolate or leave out what is "
            "missing."
        )
    _warn_if_series(values, caller)
    return values


def _as_array(X: Any, caller: str) -> np.ndarray:
    if isinstance(X, Tensor):
        return tensor_to_array(X)
    try:
        values = np.asarray(X)
    except ValueError as error:
        raise BrainDataError(
            f"{caller} needs rows of equal length in a 2-D table. Got rows that differ "
            f"({error}). Pass a list with one (n_timepoints, n_regions) array per scan."
        ) from error
    if isinstance(X, pd.DataFrame) and values.dtype == object:  # bool beside float
        return X.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _warn_if_series(values: np.ndarray, caller: str) -> None:
    """Warn if the rows of a table follow each other like time points."""
    if len(values) < SERIES_MIN_ROWS or values.dtype.kind != "f":
        return
    similarity = _autocorrelation(values)
    steps = _autocorrelation(np.diff(values, axis=0))
    if similarity > SERIES_AUTOCORRELATION and steps > SERIES_STEP_AUTOCORRELATION:
        warnings.warn(
            f"{caller} reads a 2-D X as {len(values)} scans of one time point. Got "
            f"rows that resemble their neighbours (autocorrelation {similarity:.2f}), "
            "as the time points of one scan do. Pass [X] if this is one scan.",
            BrainSymphonyWarning,
            stacklevel=4,
        )


def _autocorrelation(values: np.ndarray) -> float:
    """Return the mean lag-1 autocorrelation of the columns that vary, else 0."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    power = (centred**2).sum(axis=0)
    varies = power > 0
    if not varies.any():
        return 0.0
    lagged = (centred[1:] * centred[:-1]).sum(axis=0)
    return float((lagged[varies] / power[varies]).mean())
