"""Connectomes with the names of their regions, out of the files that pipelines write.

Nothing in a file is executed or unpickled: of ``.mat`` and HDF5 files only arrays of
numbers and lists of text are read.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bsym_sklearn.data.bids import BidsFile
from bsym_sklearn.data.hdf5file import Hdf5File, is_hdf5
from bsym_sklearn.data.matfile import MatFile
from bsym_sklearn.exceptions import BrainDataError

CONNECTOME_SUFFIXES = ("connectivity", "connectome")
CONNECTOME_EXTENSIONS = (".csv", ".mat", ".h5", ".hdf5")
# QSIRecon: atlas_<atlas>_<measure>_connectivity beside atlas_<atlas>_region_labels.
MATRIX = re.compile(r"atlas_([^_]+)_(.+)_connectivity")


class UnreadableFileError(ValueError):
    """A file of derivatives cannot be used; the text says why."""


@dataclass(frozen=True)
class Connectome:
    """Weights (n_regions, n_regions) and the names of the regions, None if unnamed."""

    file: BidsFile
    weights: np.ndarray
    labels: tuple[str, ...] | None


def read_connectome(
    file: BidsFile, atlas: str | None, measure: str | None
) -> Connectome:
    """Read one matrix; several atlases or measures in the file raise BrainDataError."""
    if file.extension == ".csv":
        weights, labels = _read_csv(file.path)
    else:
        weights, labels = _read_archive(file.path, atlas, measure)
    n_rows = len(weights)
    if weights.shape != (n_rows, n_rows) or n_rows == 0:
        raise UnreadableFileError(f"holds a matrix of shape {weights.shape}, no square")
    check_labels(labels, n_rows)
    if not (np.tril(weights, -1).any() and np.triu(weights, 1).any()):
        # one half only, as tck2connectome without -symmetric writes it
        weights = weights + weights.T - np.diag(np.diag(weights))
    return Connectome(file, weights.astype(np.float32), labels)


def check_labels(labels: Sequence[str] | None, n_regions: int) -> None:
    """Raise if labels do not name every region once."""
    if labels is None:
        return
    if len(labels) != n_regions:
        raise UnreadableFileError(f"has {len(labels)} labels for {n_regions} regions")
    if len(set(labels)) < n_regions or "" in labels:
        twice = next(x for i, x in enumerate(labels) if not x or x in labels[:i])
        raise UnreadableFileError(f"names more than one region {twice!r}")


def _read_csv(path: Path) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Read numbers between commas, tabs or blanks, with or without names."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        lines = [line for line in lines if line.strip() and line[0] != "#"]
        rows = _split(lines)
        if len({len(row) for row in rows}) != 1:
            raise ValueError("rows of different lengths" if rows else "no numbers")
        labels = _take_labels(rows)
        return np.array(rows, dtype=np.float64), labels
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableFileError(f"cannot be read ({error})") from error


def _split(lines: list[str]) -> list[list[str]]:
    separator = next((s for s in (",", "\t") if lines and s in lines[0]), None)
    if separator is None:
        return [line.split() for line in lines]
    return [[c.strip() for c in row] for row in csv.reader(lines, delimiter=separator)]


def _take_labels(rows: list[list[str]]) -> tuple[str, ...] | None:
    """Take names off the first row, and off the first column where they are there."""
    if len(rows) != len(rows[0]) + 1 and _is_number(rows[0][0]):
        return None
    labels = rows.pop(0)
    if rows and len(rows) < len(labels):
        labels = labels[1:]
        names = [row.pop(0) for row in rows]
        if names != labels:
            raise ValueError("rows and columns have different names")
    return tuple(labels)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_archive(
    path: Path, atlas: str | None, measure: str | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Read the one matrix of a .mat or HDF5 file that atlas and measure name."""
    try:
        archive = Hdf5File(path) if is_hdf5(path) else MatFile(path)
        matrix = _choose_matrix(archive.numeric, atlas, measure, path)
        weights = archive.numbers(matrix).astype(np.float64)
        found = MATRIX.fullmatch(matrix)
        labels = f"atlas_{found[1]}_region_labels" if found else ""
        texts = archive.texts(labels) if labels in archive.textual else None
    except (UnreadableFileError, BrainDataError):
        raise
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"cannot be read ({error})") from error
    if weights.ndim != 2:
        raise UnreadableFileError(f"holds {matrix!r} of shape {weights.shape}")
    return weights, texts


def _choose_matrix(
    numeric: list[str], atlas: str | None, measure: str | None, path: Path
) -> str:
    """Return the name of the matrix of this atlas and measure."""
    matches = [match for match in map(MATRIX.fullmatch, numeric) if match is not None]
    named = {match.group(1, 2): match[0] for match in matches}
    if not named and len(numeric) == 1:
        return numeric[0]
    atlas = _choose("atlas", atlas, sorted({key[0] for key in named}), path)
    measures = sorted(key[1] for key in named if key[0] == atlas)
    return named[atlas, _choose("measure", measure, measures, path)]


def _choose(name: str, wanted: str | None, found: list[str], path: Path) -> str:
    if wanted is None and len(found) > 1:
        raise BrainDataError(
            f"load_derivatives needs one {name} of the connectomes. Got "
            f"{', '.join(found)} in '{path}'. Choose one, as {name}={found[0]!r}."
        )
    if not found or (wanted is not None and wanted not in found):
        what = name if wanted is None else f"{name} {wanted!r}"
        raise UnreadableFileError(f"has no {what}, only {', '.join(found) or 'none'}")
    return found[0] if wanted is None else wanted
