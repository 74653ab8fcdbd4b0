"""One scan in one modality: an array in memory, or a file opened when it is read.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

import csv
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from numbers import Real
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import joblib
import numpy as np
import pandas as pd
from torch import Tensor

from bsym_sklearn.data.checks import (
    ScanChecks,
    ScanShape,
    as_real_array,
    check_values,
)
from bsym_sklearn.data.shardfile import (
    check_crc,
    find_member,
    is_member,
    read_rows,
)
from bsym_sklearn.exceptions import BrainDataError

SEPARATORS = {".tsv": "\t", ".csv": ","}
SUFFIXES = (".npy", *SEPARATORS, ".1D")
# Spellings of a missing number; fMRIPrep and XCP-D write "n/a".
MISSING_NUMBERS = frozenset({"", "n/a", "na", "nan", "null", "none"})
# A parsed text file of 400 regions and 1200 time points takes 4 MB.
N_CACHED_TEXT_FILES = 32
N_CACHED_HEADERS = 256
# The last two are numpy's, of a damaged .npy header.
READING_ERRORS = (OSError, EOFError, ValueError, csv.Error, SyntaxError, TokenError)
NPY_1_0 = np.lib.format.magic(1, 0)


class Recording(ABC):
    """One scan in one modality, checked when it enters or when it is first read.

    Attributes
    ----------
    modality : {"fmri", "sc"}
        What the values are.
    label : str
        Words that name the scan in an error, e.g. ``"scan 3 (sub-01)"``.
    shape : tuple of (int, int)
        (n_timepoints, n_regions) or (n_regions, n_regions), known without reading.
    dtype : numpy.dtype
        Type of the values as they are stored.
    regions : tuple of str or None
        Names of the columns, where they have some.
    """

    modality: str
    label: str
    shape: tuple[int, ...]
    dtype: np.dtype
    regions: tuple[str, ...] | None = None

    @abstractmethod
    def read(self, dtype: Any = np.float32, rows: slice = slice(None)) -> np.ndarray:
        """Return the values as a new array that the caller may change.

        Parameters
        ----------
        dtype : dtype, default=numpy.float32
            Type of the returned array. None keeps the precision: float64 where the
            values need it, else float32.
        rows : slice, default=slice(None)
            Time points, or rows of the connectome. Only these are copied, and of a
            ``.npy`` file or a shard's member that was read whole once before, only
            these are read.

        Returns
        -------
        values : ndarray of shape (n_timepoints, n_regions) or (n_regions, n_regions)
            The scan, or those rows of it.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return text that changes when the values change."""

    def content_hash(self) -> str:
        """Return text that is the same for the same content."""
        return self.fingerprint()

    def describe(self) -> ScanShape:
        """Return what the checks across scans need to know."""
        return ScanShape(self.modality, self.shape, self.label, self.regions)


class ArrayRecording(Recording):
    """A scan whose values lie in memory and were checked on entry."""

    def __init__(
        self,
        values: np.ndarray,
        modality: str,
        label: str,
        regions: tuple[str, ...] | None = None,
    ) -> None:
        self.values = values
        self.modality = modality
        self.label = label
        self.regions = regions
        self.shape = values.shape
        self.dtype = values.dtype

    def read(self, dtype: Any = np.float32, rows: slice = slice(None)) -> np.ndarray:
        """Return a copy of the values; see `Recording.read`."""
        return _copy_as(self.values[rows], dtype)

    def fingerprint(self) -> str:
        """Return the hash of the values."""
        return str(joblib.hash(np.ascontiguousarray(self.values)))


class FileRecording(Recording):
    """A scan in a file: its shape is checked on entry, its values when first read."""

    _remedy = f"Write the file again as one of {', '.join(SUFFIXES)}."

    def __init__(
        self, path: Path, modality: str, label: str, checks: ScanChecks
    ) -> None:
        self.path = path
        self.modality = modality
        self.label = label
        self.checks = checks
        self._is_checked = False
        self._inspect()

    def read(self, dtype: Any = np.float32, rows: slice = slice(None)) -> np.ndarray:
        """Read the file; see `Recording.read`.

        Raises
        ------
        BrainDataError
            If the file is gone, unreadable or of another shape than when it was
            checked, or if its values cannot be used.
        """
        values = self._load()
        if values.shape != self.shape:
            raise BrainDataError(
                f"{self.checks.caller} needs files that do not change while they are "
                f"used. Got shape {values.shape} instead of {self.shape} in "
                f"'{self.path}', first in {self.label}. Start again."
            )
        if not self._is_checked:
            check_values(values, self.modality, self._full_label, self.checks)
            self._is_checked = True
        return _copy_as(values[rows], dtype)

    def fingerprint(self) -> str:
        """Return the file's path, size and time of change."""
        return f"{self.path.absolute()}:{self._size}:{self._mtime}"

    def content_hash(self) -> str:
        """Return the hash of the file's bytes."""
        with self._named_errors(), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _inspect(self) -> None:
        """Learn all that is known without reading."""
        values = self._load()
        self.shape = values.shape
        self.dtype = values.dtype
        self._size, self._mtime = _size_and_mtime(self.path)
        if self.path.suffix in SEPARATORS:
            self.regions = _parse_text(self.path, self._size, self._mtime)[1]

    def _load(self) -> np.ndarray:
        with self._named_errors():
            values = _open_file(self.path)
        return as_real_array(
            values,
            caller=self.checks.caller,
            modality=self.modality,
            label=self._full_label,
        )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Say which scan cannot be read."""
        try:
            yield
        except READING_ERRORS as error:
            raise BrainDataError(
                f"{self.checks.caller} needs readable files in {self.modality!r}. Got "
                f"'{self.path}' ({error}), first in {self.label}. {self._remedy}"
            ) from error

    @property
    def _full_label(self) -> str:
        return f"{self.label}, file '{self.path}'"


class ShardRecording(FileRecording):
    """A scan in a shard of :func:`bsym_sklearn.data.save_shards`.

    Its path is that of the shard and the name of the member: ``00001.tar/a.npy``.
    """

    _remedy = "Copy the shard again, or write it again with save_shards."

    def read(self, dtype: Any = np.float32, rows: slice = slice(None)) -> np.ndarray:
        """Read the member, or some of its rows; see `Recording.read`."""
        if not self._is_checked:
            return super().read(dtype, rows)
        return _copy_as(self._load(rows), dtype)

    def content_hash(self) -> str:
        """Return the hash of the values."""
        return str(joblib.hash(self.read(None)))

    def _inspect(self) -> None:
        with self._named_errors():
            self._member, self._start = find_member(self.path)
            self._size, self._mtime = _size_and_mtime(self.path.parent)
        self.shape = self._member.shape
        self.dtype = np.dtype(self._member.dtype)

    def _load(self, rows: slice = slice(None)) -> np.ndarray:
        shard = self.path.parent
        with self._named_errors():
            if _size_and_mtime(shard) != (self._size, self._mtime):
                raise ValueError(f"'{shard.name}' changed while it is used")
            values = read_rows(shard, self._member, self._start, rows)
            if not self._is_checked:
                check_crc(values, self._member)
        return values


def is_missing(cell: Any) -> bool:
    """Say if a cell holds no scan: None, NaN, NA, NaT or empty text."""
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    return isinstance(cell, Real) and bool(cell != cell)  # only NaN differs from itself


def is_path(cell: Any) -> bool:
    """Say if a cell names a file."""
    return isinstance(cell, str | os.PathLike)


def make_recording(
    cell: Any, modality: str, label: str, checks: ScanChecks
) -> Recording | None:
    """Turn a cell into a recording, or None where it is missing.

    The values of an array are not checked here: the shapes of all scans come first.
    """
    if is_missing(cell):
        return None
    if is_path(cell):
        # absolute: a worker process may have another working directory
        path = Path(os.path.abspath(cell))  # noqa: PTH100  (keeps symbolic links)
        _check_suffix(path, modality, label, checks.caller)
        kind = ShardRecording if is_member(path) else FileRecording
        return kind(path, modality, label, checks)
    if isinstance(cell, Tensor):
        cell = tensor_to_array(cell)
    values = as_real_array(cell, caller=checks.caller, modality=modality, label=label)
    regions = _names_of(cell.columns) if isinstance(cell, pd.DataFrame) else None
    return ArrayRecording(values, modality, label, regions)


def tensor_to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values; bfloat16, which numpy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()


def _copy_as(values: np.ndarray, dtype: Any) -> np.ndarray:
    if dtype is None:
        dtype = np.result_type(values.dtype, np.float32)
    return np.array(values, dtype=dtype, order="C")


def _check_suffix(path: Path, modality: str, label: str, caller: str) -> None:
    if path.suffix in SUFFIXES:
        return
    advice = "Save the array with numpy.save."
    if path.name.endswith((".nii", ".nii.gz")):
        advice = "Extract one series per region first, with `parcellate`."
    raise BrainDataError(
        f"{caller} needs {modality!r} files that end in {', '.join(SUFFIXES)}. Got "
        f"'{path.name}', first in {label}. {advice}"
    )


def _size_and_mtime(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _open_file(path: Path) -> np.ndarray:
    """Open a .npy file without reading its values, or parse a text file."""
    if path.suffix != ".npy":
        return _parse_text(path, *_size_and_mtime(path))[0]
    values = _map_npy(path)
    if not isinstance(values, np.ndarray):
        values.close()
        raise ValueError("an .npz archive, not one array")
    return values


def _map_npy(path: Path) -> Any:
    """Map a .npy file as numpy.load does, which parses equal headers again."""
    with path.open("rb") as file:
        start = file.read(len(NPY_1_0) + 2)
        if start.startswith(NPY_1_0):
            start += file.read(int.from_bytes(start[-2:], "little"))
            shape, is_fortran, dtype = _parse_npy_header(start)
            if not dtype.hasobject:
                order: Literal["C", "F"] = "F" if is_fortran else "C"
                any_file: Any = file  # numpy's annotation wants a file to write, too
                return np.memmap(any_file, dtype, "r", len(start), shape, order)
    return np.load(path, mmap_mode="r", allow_pickle=False)


@lru_cache(maxsize=N_CACHED_HEADERS)
def _parse_npy_header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    file = BytesIO(start[len(NPY_1_0) :])
    return np.lib.format.read_array_header_1_0(file)


@lru_cache(maxsize=N_CACHED_TEXT_FILES)
def _parse_text(
    path: Path,
    size: int,  # noqa: ARG001
    mtime: int,  # noqa: ARG001
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Parse a text file; `size` and `mtime` make the cache forget a changed file."""
    if path.suffix == ".1D":
        values, names = _parse_afni(path), None
    else:
        values, names = _parse_columns(path, SEPARATORS[path.suffix])
    values.flags.writeable = False
    return values, names


def _parse_afni(path: Path) -> np.ndarray:
    """Parse numbers between blanks, with comments and without names."""
    lines = path.read_text().splitlines()
    rows = [line.partition("#")[0].split() for line in lines]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError("no numbers")
    return np.array(rows, dtype=np.float64)


def _parse_columns(
    path: Path, separator: str
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the numbers, and the names of their columns."""
    header = _read_header(path, separator)
    table = pd.read_csv(
        path,
        sep=separator,
        header=None,
        skiprows=0 if header is None else 1,
        na_values=sorted(MISSING_NUMBERS),
        encoding="utf-8-sig",
    )
    if header is not None and len(header) == table.shape[1] - 1:
        table = table.iloc[:, 1:]  # R names the rows, and not the column of names
    elif header is not None and _has_row_names(header, table):
        table, header = table.iloc[:, 1:], header[1:]
    elif header is None and _is_numbered_header(table):
        header, table = table.iloc[0].astype(int).astype(str).tolist(), table.iloc[1:]
    texts = [i for i, kind in enumerate(table.dtypes) if kind.kind not in "biuf"]
    if texts:
        raise ValueError(f"column {texts[0]} holds text")
    values = table.to_numpy()
    first, count = values[:, 0], np.arange(len(values))
    if len(first) > 2 and (
        np.array_equal(first, count) or np.array_equal(first, count + 1)
    ):
        raise ValueError("its first column counts the rows; write it without")
    return values, None if header is None else _names_of(header)


def _names_of(columns: Any) -> tuple[str, ...] | None:
    """Return the names of columns, None where they are only numbered."""
    names = tuple(str(name).strip() for name in columns)
    return None if _counts(names) or len(set(names)) < len(names) else _one(names)


@lru_cache(maxsize=N_CACHED_HEADERS)
def _one(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same object for equal names: scans of a cohort share theirs."""
    return names


def _counts(names: Sequence[str]) -> bool:
    """Say if names are 0, 1, 2, ... or 1, 2, 3, ..."""
    numbers = [str(i) for i in range(len(names) + 1)]
    return list(names) in (numbers[:-1], numbers[1:])


def _is_numbered_header(table: pd.DataFrame) -> bool:
    """Say if the first row has rising whole numbers, and others have not."""
    if len(table) < 2 or table.shape[1] < 3 or any(k.kind != "f" for k in table.dtypes):
        return False
    first, rest = table.iloc[0].to_numpy(), table.iloc[1:].to_numpy()
    is_rising = bool((first >= 0).all() and (np.diff(first) > 0).all())
    return is_rising and bool((first % 1 == 0).all() and (rest % 1 != 0).any())


def _read_header(path: Path, separator: str) -> list[str] | None:
    """Return the first row if it names the columns."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file, delimiter=separator), [])
    first = [cell.strip() for cell in first]
    # 0, 1, 2, ... is what pandas writes above an array without column names.
    is_counted = len(first) > 1 and _counts(first)
    return first if is_counted or not all(map(_is_number, first)) else None


def _is_number(text: str) -> bool:
    if text.lower() in MISSING_NUMBERS:
        return text != ""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_row_names(header: list[str], table: pd.DataFrame) -> bool:
    """Say if the first column repeats the region names or has no name of its own."""
    if header[0] == "":
        return True
    names = [str(name) for name in table.iloc[:, 0].tolist()]
    return not all(map(_is_number, names)) and names == header[-len(names) :]
