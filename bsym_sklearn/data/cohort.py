"""The door: every accepted X -> one validated Cohort of scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import methodcaller
from typing import Any

import joblib
import numpy as np
import pandas as pd

from bsym_sklearn.data.checks import (
    ConstantRegions,
    ScanChecks,
    SymmetricSC,
    check_option,
    check_region_order,
    check_shapes,
    check_values,
)
from bsym_sklearn.data.containers import MODALITIES, Columns, is_table, unpack
from bsym_sklearn.data.recording import (
    ArrayRecording,
    Recording,
    make_recording,
)
from bsym_sklearn.data.table import check_table
from bsym_sklearn.exceptions import BrainDataError


@dataclass(frozen=True, eq=False)
class Cohort:
    """Validated scans, one per row, with either modality possibly missing.

    Made by `check_cohort`. It can be pickled; files stay files.

    Attributes
    ----------
    fmri, sc : tuple of (Recording or None) of length n_scans
        The scans; None where the modality is missing.
    n_regions : int
        Number of regions, shared by all scans and both modalities.
    index : pandas.Index or None
        Index of the DataFrame or Series that the scans came from.
    covariates : DataFrame or None
        All other columns of that DataFrame, untouched.
    regions : DataFrame or None
        Table of the regions, one row each, from ``X.attrs["regions"]``.
    is_table : bool
        True if the scans are the rows of a 2-D table: one time point each.
    constant_regions : {"error", "mask"}
        Policy under which the scans were accepted.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import check_cohort
    >>> rng = np.random.default_rng(0)
    >>> cohort = check_cohort([rng.normal(size=(t, 4)) for t in (20, 30)])
    >>> len(cohort), cohort.n_regions, cohort.modalities
    (2, 4, ('fmri',))
    >>> cohort.n_timepoints
    array([20, 30])
    >>> cohort.read_fmri(0).shape
    (20, 4)
    """

    fmri: tuple[Recording | None, ...]
    sc: tuple[Recording | None, ...]
    n_regions: int
    index: pd.Index | None = None
    covariates: pd.DataFrame | None = None
    regions: pd.DataFrame | None = None
    is_table: bool = False
    constant_regions: ConstantRegions = "error"

    def __len__(self) -> int:
        return len(self.fmri)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities present in at least one row, in the order fmri, sc."""
        return tuple(m for m in MODALITIES if any(r is not None for r in self._get(m)))

    @property
    def n_timepoints(self) -> np.ndarray:
        """Number of time points of each scan, 0 where fmri is missing; (n_scans,)."""
        return np.array([0 if r is None else r.shape[0] for r in self.fmri], dtype=int)

    def take(self, indices: Any) -> Cohort:
        """Return some of the rows, in the order asked for.

        Parameters
        ----------
        indices : array-like of int, array-like of bool of length n_scans, or slice
            Row numbers, or a mask of the rows to keep.

        Returns
        -------
        cohort : Cohort
            The rows. Labels of scans keep their first row number.

        Examples
        --------
        >>> import numpy as np
        >>> from bsym_sklearn.data import check_cohort
        >>> cohort = check_cohort(np.random.default_rng(0).normal(size=(3, 9, 2)))
        >>> cohort.take([2, 0]).fmri[0].label
        'scan 2'
        """
        rows = np.arange(len(self))[_as_indexer(indices)]
        return replace(
            self,
            fmri=tuple(self.fmri[i] for i in rows),
            sc=tuple(self.sc[i] for i in rows),
            index=None if self.index is None else self.index[rows],
            covariates=None if self.covariates is None else self.covariates.iloc[rows],
        )

    def read_fmri(
        self,
        i: int,
        dtype: Any = np.float32,
        time_points: slice = slice(None),
    ) -> np.ndarray:
        """Return the series of row `i` as a new array.

        Parameters
        ----------
        i : int
            Row number.
        dtype : dtype, default=numpy.float32
            Type of the returned array; None keeps the precision.
        time_points : slice, default=slice(None)
            Which ones; see `Recording.read`.

        Returns
        -------
        values : ndarray of shape (n_timepoints, n_regions)
            The series, or those time points of it.

        Raises
        ------
        BrainDataError
            If the row has no fmri, or its file cannot be used.
        """
        return self._read("fmri", i, dtype, time_points)

    def read_sc(self, i: int, dtype: Any = np.float32) -> np.ndarray:
        """Return the connectome of row `i` as a new array.

        Parameters
        ----------
        i : int
            Row number.
        dtype : dtype, default=numpy.float32
            Type of the returned array; None keeps the precision.

        Returns
        -------
        weights : ndarray of shape (n_regions, n_regions)
            The connectome.

        Raises
        ------
        BrainDataError
            If the row has no sc, or its file cannot be used.
        """
        return self._read("sc", i, dtype)

    def replace_arrays(
        self, modality: str, arrays: Sequence[np.ndarray | None]
    ) -> Cohort:
        """Return the cohort with one modality's values replaced, unchecked.

        Parameters
        ----------
        modality : {"fmri", "sc"}
            Which modality.
        arrays : sequence of (ndarray or None) of length n_scans
            New values; None where the modality is missing.

        Returns
        -------
        cohort : Cohort
            Everything else is as before.
        """
        recordings = tuple(
            None
            if old is None or new is None
            else ArrayRecording(new, modality, old.label)
            for old, new in zip(self._get(modality), arrays, strict=True)
        )
        if modality == "sc":
            return replace(self, sc=recordings)
        return replace(self, fmri=recordings)

    def fingerprint(self) -> str:
        """Return a hash of the content, the same in every process.

        Arrays count by their values, files by their path, size and time of change.

        Returns
        -------
        fingerprint : str
            32 hexadecimal digits.
        """
        return self._hash_of(methodcaller("fingerprint"))

    def content_hash(self) -> str:
        """Return a hash of the content, the same wherever the files lie.

        Files count by their bytes: all are read once.

        Returns
        -------
        content_hash : str
            32 hexadecimal digits.
        """
        return self._hash_of(methodcaller("content_hash"))

    def _hash_of(self, name: Callable[[Recording], str]) -> str:
        """Return a hash of all recordings' names of this kind."""
        rows = [
            [None if r is None else name(r) for r in pair]
            for pair in zip(self.fmri, self.sc, strict=True)
        ]
        return str(joblib.hash(rows))

    def _get(self, modality: str) -> tuple[Recording | None, ...]:
        return self.sc if modality == "sc" else self.fmri

    def _read(
        self, modality: str, i: int, dtype: Any, rows: slice = slice(None)
    ) -> np.ndarray:
        recording = self._get(modality)[i]
        if recording is None:
            raise BrainDataError(
                f"Cohort needs {modality!r} in the row that is read. Got none in row "
                f"{i}. Ask which rows have it first."
            )
        return recording.read(dtype, rows)


def check_cohort(
    X: Any,
    *,
    caller: str = "check_cohort",
    fmri_column: str = "fmri",
    sc_column: str = "sc",
    constant_regions: ConstantRegions = "error",
    symmetric_sc: SymmetricSC = "require",
    min_timepoints: int = 2,
    n_regions: int | None = None,
    bare: str = "fmri",
) -> Cohort:
    """Validate whatever a user handed in and return it as a Cohort.

    Arrays are checked whole. Files are checked for their name, readability and shape;
    their values are checked when they are first read.

    Parameters
    ----------
    X : DataFrame, list, tuple, Series, ndarray, Tensor, SliceDict or Cohort
        A DataFrame has a column of fmri cells, of sc cells or both; a cell is an
        array, a path to a ``.npy``, ``.tsv``, ``.csv`` or ``.1D`` file, or missing
        (None, NaN, NA, empty text). Without columns X holds one modality, one scan
        per element: (n_timepoints, n_regions) arrays of any length or paths, or an
        (n_scans, n_timepoints, n_regions) array or tensor. A 2-D numeric X is a
        table: n scans of one time point.
    caller : str, default="check_cohort"
        Who asks; begins the error messages.
    fmri_column, sc_column : str, default="fmri", "sc"
        Names of the modality columns.
    constant_regions : {"error", "mask"}, default="error"
        Whether regions that never change within a scan raise or are let through.
    symmetric_sc : {"require", "allow"}, default="require"
        Whether asymmetric connectomes raise or are let through.
    min_timepoints : int, default=2
        Shortest scan to accept, at least 1. Does not apply to tables.
    n_regions : int or None, default=None
        Number of regions that X must have, or None to take it from X.
    bare : {"fmri", "sc"}, default="fmri"
        Modality of an X without column names.

    Returns
    -------
    cohort : Cohort
        The validated scans. A Cohort comes back as it is.

    Raises
    ------
    BrainDataError
        If the data cannot be used; the message names the first such scan.
    TypeError
        If X has an unknown form, e.g. is a plain dict.
    ValueError
        If an option is unknown.

    Warns
    -----
    BrainSymphonyWarning
        If a 2-D table looks like one participant's series.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from bsym_sklearn.data import check_cohort
    >>> rng = np.random.default_rng(0)
    >>> series = [rng.normal(size=(20, 4)), None]
    >>> X = pd.DataFrame({"fmri": series, "sc": [None, np.ones((4, 4))], "age": [7, 9]})
    >>> cohort = check_cohort(X)
    >>> cohort.modalities, list(cohort.covariates)
    (('fmri', 'sc'), ['age'])
    """
    check_option("constant_regions", constant_regions, ("error", "mask"))
    check_option("symmetric_sc", symmetric_sc, ("require", "allow"))
    check_option("bare", bare, MODALITIES)
    if isinstance(X, Cohort):
        _check_n_regions(X, caller, n_regions)
        return X
    checks = ScanChecks(caller, constant_regions, symmetric_sc)
    if is_table(X, fmri_column=fmri_column, sc_column=sc_column):
        cohort = _read_table(X, caller, constant_regions)
        _check_n_regions(cohort, caller, n_regions)
        return cohort
    columns = unpack(
        X, caller=caller, fmri_column=fmri_column, sc_column=sc_column, bare=bare
    )
    return _check_columns(columns, checks, min_timepoints, n_regions)


def _check_columns(
    columns: Columns, checks: ScanChecks, min_timepoints: int, n_regions: int | None
) -> Cohort:
    """Turn cells into recordings: first every shape, then the values in memory."""
    if len(columns.fmri) == 0:
        raise BrainDataError(
            f"{checks.caller} needs at least one scan. Got an empty X. Check the "
            "selection of rows."
        )
    labels = _scan_labels(columns)
    rows = list(zip(columns.fmri, columns.sc, labels, strict=True))
    fmri = tuple(make_recording(cell, "fmri", label, checks) for cell, _, label in rows)
    sc = tuple(make_recording(cell, "sc", label, checks) for _, cell, label in rows)
    for first, second, label in zip(fmri, sc, labels, strict=True):
        if first is None and second is None:
            raise BrainDataError(
                f"{checks.caller} needs at least one modality per row. Got neither "
                f"'fmri' nor 'sc', first in {label}. Leave the row out."
            )
    present = [r for r in (*fmri, *sc) if r is not None]
    shared = check_shapes(
        [r.describe() for r in present],
        caller=checks.caller,
        min_timepoints=min_timepoints,
        n_regions=n_regions,
    )
    for recording in present:
        if isinstance(recording, ArrayRecording):
            check_values(recording.values, recording.modality, recording.label, checks)
    _check_region_table(columns.regions, shared, checks.caller)
    check_region_order([r.describe() for r in present], columns.regions, checks.caller)
    return Cohort(
        fmri=fmri,
        sc=sc,
        n_regions=shared,
        index=columns.index,
        covariates=columns.covariates,
        regions=columns.regions,
        constant_regions=checks.constant_regions,
    )


def _read_table(X: Any, caller: str, constant_regions: ConstantRegions) -> Cohort:
    """Read a 2-D numeric X as scans of one time point."""
    values = check_table(X, caller=caller)
    n_scans, n_regions = values.shape
    return Cohort(
        fmri=tuple(
            ArrayRecording(values[i : i + 1], "fmri", f"scan {i}")
            for i in range(n_scans)
        ),
        sc=(None,) * n_scans,
        n_regions=n_regions,
        index=X.index if isinstance(X, pd.DataFrame) else None,
        is_table=True,
        constant_regions=constant_regions,
    )


def _scan_labels(columns: Columns) -> list[str]:
    """Name each row by its number and, where there is one, its participant or index."""
    n_rows = len(columns.fmri)
    names: list[Any] = [None] * n_rows
    if columns.covariates is not None and "participant_id" in columns.covariates:
        names = columns.covariates["participant_id"].tolist()
    elif columns.index is not None and not is_default_index(columns.index):
        is_number = pd.api.types.is_numeric_dtype(columns.index.dtype)
        names = [f"index {i}" if is_number else i for i in columns.index]
    return [
        f"scan {i}" if name is None else f"scan {i} ({name})"
        for i, name in enumerate(names)
    ]


def is_default_index(index: pd.Index) -> bool:
    """Say if an index only counts the rows."""
    return bool(index.equals(pd.RangeIndex(len(index))))


def _as_indexer(indices: Any) -> Any:
    """Return a slice or an array that numpy can index with; [] selects nothing."""
    if isinstance(indices, slice):
        return indices
    indexer = np.asarray(indices)
    return indexer.astype(int) if indexer.size == 0 else indexer


def _check_n_regions(cohort: Cohort, caller: str, n_regions: int | None) -> None:
    if n_regions is not None and cohort.n_regions != n_regions:
        raise BrainDataError(
            f"{caller} needs scans of {n_regions} regions, as in fit. Got "
            f"{cohort.n_regions} regions, first in scan 0. Use one atlas for all scans "
            "and both modalities."
        )


def _check_region_table(
    regions: pd.DataFrame | None, n_regions: int, caller: str
) -> None:
    if regions is not None and len(regions) != n_regions:
        raise BrainDataError(
            f"{caller} needs one row per region in attrs['regions']. Got "
            f"{len(regions)} rows for {n_regions} regions. Use the table of the same "
            "atlas."
        )
