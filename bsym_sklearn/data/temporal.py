"""Time, as transformers of cohorts: one repetition time, one length, many windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from skorch.helper import SliceDict

from bsym_sklearn.data.checks import check_count
from bsym_sklearn.data.cohort import Cohort, check_cohort, is_default_index
from bsym_sklearn.data.containers import as_column
from bsym_sklearn.data.recording import Recording
from bsym_sklearn.data.resampling import crop, is_repetition_time, resample
from bsym_sklearn.data.transformer import ScanTransformer, no_table_error
from bsym_sklearn.exceptions import BrainDataError


class TimeSeriesResampler(ScanTransformer):
    """Bring all scans to one repetition time; see `resample`.

    Parameters
    ----------
    t_r : str or float, default="t_r"
        Repetition time of the scans in seconds, or the column of X that holds each
        scan's. That column holds `new_t_r` afterwards.
    new_t_r : float
        Repetition time to reach, in seconds.

    Attributes
    ----------
    n_features_in_ : int
        Number of regions.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import TimeSeriesResampler, make_cohort_frame
    >>> rng = np.random.default_rng(0)
    >>> scans = [rng.normal(size=(100, 3)), rng.normal(size=(50, 3))]
    >>> X = make_cohort_frame(scans, t_r=[1.0, 2.0])
    >>> resampled = TimeSeriesResampler(new_t_r=2.5).fit_transform(X)
    >>> [x.shape for x in resampled["fmri"]], resampled["t_r"].tolist()
    ([(40, 3), (40, 3)], [2.5, 2.5])
    """

    _accepts_tables = False
    _min_timepoints = 2

    def __init__(self, *, t_r: str | float = "t_r", new_t_r: float) -> None:
        self.t_r = t_r
        self.new_t_r = new_t_r

    def _complete(self, X_new: Any) -> Any:
        """Write the new repetition time into the column that gave the old one."""
        if not isinstance(self.t_r, str):
            return X_new
        new_t_r = float(self.new_t_r)
        if isinstance(X_new, Cohort) and X_new.covariates is not None:
            table = X_new.covariates.assign(**{self.t_r: new_t_r})
            return replace(X_new, covariates=table)
        if isinstance(X_new, pd.DataFrame):
            return X_new.assign(**{self.t_r: new_t_r})
        return SliceDict(**{**X_new, self.t_r: np.full(len(X_new), new_t_r)})

    def _check_parameters(self) -> None:
        if not is_repetition_time(self.new_t_r):
            raise ValueError(f"new_t_r must be positive seconds. Got {self.new_t_r!r}.")
        if not isinstance(self.t_r, str) and not is_repetition_time(self.t_r):
            raise ValueError(
                f"t_r must be positive seconds or the name of a column. Got "
                f"{self.t_r!r}."
            )

    def _fit_cohort(self, cohort: Cohort) -> None:
        self._repetition_times(cohort)

    def _transform_cohort(self, cohort: Cohort) -> list[Any]:
        times = self._repetition_times(cohort)
        return [
            None if r is None else resample(r.read(None), t_r, self.new_t_r)
            for r, t_r in zip(cohort.fmri, times, strict=True)
        ]

    def _repetition_times(self, cohort: Cohort) -> list[float]:
        if not isinstance(self.t_r, str):
            return [float(self.t_r)] * len(cohort)
        if cohort.covariates is None or self.t_r not in cohort.covariates:
            raise BrainDataError(
                f"TimeSeriesResampler needs the repetition time of every scan in the "
                f"column {self.t_r!r}. Got an X without it. Add the column, or give "
                "the seconds as t_r."
            )
        times = cohort.covariates[self.t_r].tolist()
        for recording, value in zip(cohort.fmri, times, strict=True):
            if recording is not None and not is_repetition_time(value):
                raise BrainDataError(
                    f"TimeSeriesResampler needs positive seconds in {self.t_r!r}. Got "
                    f"{value!r}, first in {recording.label}. Correct the cell."
                )
        return times


class Cropper(ScanTransformer):
    """Cut one window of time points out of every scan.

    Parameters
    ----------
    window : int
        Number of time points to keep, at least 1.
    start : {"first", "middle", "last"} or int, default="first"
        Which ones: the first, the middle or the last, or those from this number on.

    Attributes
    ----------
    n_features_in_ : int
        Number of regions.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import Cropper
    >>> X = np.arange(10.0).reshape(1, 10, 1)
    >>> Cropper(window=4, start="middle").fit_transform(X).ravel()
    array([3., 4., 5., 6.])
    """

    _accepts_tables = False

    def __init__(
        self, *, window: int, start: Literal["first", "middle", "last"] | int = "first"
    ) -> None:
        self.window = window
        self.start = start

    def _check_parameters(self) -> None:
        check_count("window", self.window)
        if self.start not in ("first", "middle", "last"):
            check_count("start", self.start, lowest=0)

    def _fit_cohort(self, cohort: Cohort) -> None:
        """Learn nothing."""

    def _transform_scan(self, values: np.ndarray, label: str) -> np.ndarray:
        spare = len(values) - self.window
        places = {"first": 0, "middle": spare // 2, "last": spare}
        start = places[self.start] if isinstance(self.start, str) else self.start
        if spare < 0 or start > spare:
            raise BrainDataError(
                f"Cropper needs {self.window} time points from {self.start!r} on. Got "
                f"{len(values)}, first in {label}. Use a shorter window, or leave the "
                "scan out."
            )
        return crop(values, start, self.window)


def cut_windows(
    X: Any, window: int, *, stride: int | None = None, min_length: int | None = None
) -> pd.DataFrame:
    """Cut every scan into windows, one row each.

    Windows start at 0, `stride`, 2 `stride`, ...; they do not overlap unless `stride`
    is smaller than `window`. What is left at the end of a scan becomes a shorter window
    if it has `min_length` time points. To keep windows of one scan together in
    cross-validation, group by ``scan`` or by participant.

    Parameters
    ----------
    X : DataFrame, list, ndarray, Tensor, SliceDict, Series or Cohort
        Scans in any form that `check_cohort` accepts, not a 2-D table. Values are read.
    window : int
        Number of time points of a window, at least 1.
    stride : int or None, default=None
        Distance between starts, at least 1; None means `window`.
    min_length : int or None, default=None
        Shortest window to keep, in [1, window]; None keeps full windows only.

    Returns
    -------
    windows : DataFrame
        One row per window: the covariates of its scan, ``fmri``, ``sc`` (if X has it),
        ``scan`` (row number in X) and ``start`` (first time point). A row without fmri
        stays one row with start 0. The index repeats that of X, if it has one.

    Raises
    ------
    BrainDataError
        If a scan is shorter than `min_length`, X has a column ``scan`` or ``start``,
        or the data cannot be used.
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import cut_windows
    >>> scans = [np.random.default_rng(0).normal(size=(t, 3)) for t in (20, 31)]
    >>> cut_windows(scans, 10)[["scan", "start"]].to_numpy().tolist()
    [[0, 0], [0, 10], [1, 0], [1, 10], [1, 20]]
    """
    check_count("window", window)
    stride = window if stride is None else check_count("stride", stride)
    min_length = window if min_length is None else min_length
    if check_count("min_length", min_length) > window:
        raise ValueError(f"min_length must be in [1, {window}]. Got {min_length!r}.")
    cohort = check_cohort(
        X, caller="cut_windows", constant_regions="mask", symmetric_sc="allow"
    )
    if cohort.is_table:
        raise no_table_error("cut_windows")
    cells: list[Any] = []
    origins: list[tuple[int, int]] = []
    for i, recording in enumerate(cohort.fmri):
        for start, values in _cut(recording, window, stride, min_length):
            cells.append(values)
            origins.append((i, start))
    return _window_frame(cohort, cells, origins)


def _cut(
    recording: Recording | None, window: int, stride: int, min_length: int
) -> list[tuple[int, np.ndarray | None]]:
    """Return the start and the values of every window of one scan."""
    if recording is None:
        return [(0, None)]
    n_timepoints = recording.shape[0]
    if n_timepoints < min_length:
        raise BrainDataError(
            f"cut_windows needs at least {min_length} time points in every scan. Got "
            f"{n_timepoints}, first in {recording.label}. Use shorter windows, or "
            "leave the scan out."
        )
    values = recording.read(None)
    starts = range(0, n_timepoints - min_length + 1, stride)
    return [(start, crop(values, start, window).copy()) for start in starts]


def _window_frame(
    cohort: Cohort, cells: list[Any], origins: list[tuple[int, int]]
) -> pd.DataFrame:
    """Put windows beside the covariates and the connectome of their scan."""
    rows = np.array([i for i, _ in origins])
    if cohort.covariates is None:
        index = pd.RangeIndex(len(cohort)) if cohort.index is None else cohort.index
        frame = pd.DataFrame(index=index).iloc[rows]
    else:
        frame = cohort.covariates.iloc[rows]
    taken = [name for name in ("scan", "start") if name in frame.columns]
    if taken:
        raise BrainDataError(
            f"cut_windows needs the column names 'scan' and 'start' for itself. Got an "
            f"X with {taken}. Rename them."
        )
    if cohort.index is None or is_default_index(cohort.index):
        frame = frame.reset_index(drop=True)
    if cohort.regions is not None:
        frame.attrs["regions"] = cohort.regions
    columns: dict[str, Any] = {}
    if any(cell is not None for cell in cells):
        columns["fmri"] = as_column(cells, frame.index)
    if "sc" in cohort.modalities:
        connectomes = [None if r is None else r.read(None) for r in cohort.sc]
        columns["sc"] = as_column([connectomes[i] for i in rows], frame.index)
    return frame.assign(
        **columns, scan=rows, start=np.array([start for _, start in origins])
    )
