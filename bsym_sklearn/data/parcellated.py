"""Parcellated series with the names of their regions: BIDS .tsv and CIFTI .ptseries."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np
import pandas as pd

from bsym_sklearn.data.bids import BidsFile
from bsym_sklearn.data.connectomes import UnreadableFileError, check_labels
from bsym_sklearn.data.recording import MISSING_NUMBERS

TSV = ".tsv"
CIFTI = ".ptseries.nii"


@dataclass(frozen=True)
class Series:
    """One scan's file, the regions it has values of, and its step if it tells.

    `is_plain` says that the file's columns are exactly these regions, so that the
    cohort reader may open it itself.
    """

    file: BidsFile
    labels: tuple[str, ...]
    is_plain: bool
    t_r: float | None = None

    def load(self, regions: Sequence[str]) -> str | np.ndarray:
        """Return the path if nothing needs to be changed, else (n_timepoints, R)."""
        if self.is_plain and self.labels == tuple(regions):
            return str(self.file.path)
        try:
            if self.file.extension == TSV:
                return _read_columns(self.file.path, regions)
            labels, values, _ = _open_cifti(self.file.path)
            columns = [labels.index(region) for region in regions]
            return np.asarray(values, dtype=np.float32)[:, columns]
        except (OSError, ValueError, csv.Error) as error:
            raise UnreadableFileError(f"cannot be read ({error})") from error


def open_series(file: BidsFile) -> Series:
    """Read which regions a scan has; XCP-D writes n/a where too few voxels are seen."""
    try:
        if file.extension == TSV:
            labels, first = _read_two_rows(file.path)
            present = tuple(
                label
                for label, cell in zip(labels, first, strict=True)
                if cell.strip().lower() not in MISSING_NUMBERS
            )
            return Series(file, present, is_plain=len(present) == len(labels))
        labels, values, t_r = _open_cifti(file.path)
        seen = np.isfinite(np.asarray(values[:1], dtype=np.float32)[0])
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableFileError(f"cannot be read ({error})") from error
    present = tuple(
        label for label, is_seen in zip(labels, seen, strict=True) if is_seen
    )
    return Series(file, present, is_plain=False, t_r=t_r)


def _read_two_rows(path: Path) -> tuple[list[str], list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter="\t")
        labels = [label.strip() for label in next(rows, [])]
        first = next(rows, None)
    check_labels(labels, len(labels))
    if first is None or len(first) != len(labels):
        n_cells = 0 if first is None else len(first)
        raise ValueError(f"{len(labels)} names above {n_cells} values")
    if all(label.replace(".", "", 1).lstrip("-").isdigit() for label in labels):
        raise ValueError("numbers instead of region names in the first row")
    return labels, first


def _read_columns(path: Path, regions: Sequence[str]) -> np.ndarray:
    table = pd.read_csv(
        path, sep="\t", na_values=sorted(MISSING_NUMBERS), encoding="utf-8-sig"
    )
    table.columns = table.columns.str.strip()
    return table[list(regions)].to_numpy(dtype=np.float32)


def _open_cifti(path: Path) -> tuple[list[str], Any, float | None]:
    """Return labels, the values (read when indexed) and seconds per time point."""
    import nibabel as nib

    try:
        image = nib.load(path)
        if not isinstance(image, nib.Cifti2Image) or image.ndim != 2:
            raise ValueError("not a CIFTI-2 file of time points and parcels")
        steps, parcels = image.header.get_axis(0), image.header.get_axis(1)
    except (
        *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError),
        *(nib.cifti2.Cifti2HeaderError, nib.wrapstruct.WrapStructError),
        *(ExpatError, LookupError, TypeError, AttributeError),
    ) as error:
        raise ValueError(str(error)) from error
    if not isinstance(steps, nib.cifti2.SeriesAxis) or not isinstance(
        parcels, nib.cifti2.ParcelsAxis
    ):
        raise ValueError("not a CIFTI-2 file of time points and parcels")
    if image.shape != (len(steps), len(parcels)):
        raise ValueError(f"values of shape {image.shape} where the header has another")
    labels = [str(name) for name in parcels.name]
    check_labels(labels, len(labels))
    t_r = float(steps.step) if steps.unit == "SECOND" and steps.step > 0 else None
    return labels, image.dataobj, t_r
