"""Which images to read: what a user handed in becomes one entry per scan."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsym_sklearn.data.bids import BidsFile, Skipped, open_dataset, parse_bids_name
from bsym_sklearn.data.containers import as_column
from bsym_sklearn.data.images import header_t_r, open_image
from bsym_sklearn.data.nuisance import CALLER, FMRIPREP
from bsym_sklearn.data.recording import is_missing, is_path
from bsym_sklearn.data.sidecars import Sidecars
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

# Entities of a file's name that become columns, as in load_derivatives.
NAMED = {"ses": "session_id", "task": "task", "run": "run"}


@dataclass(frozen=True)
class ImageScan:
    """One image to read, and what belongs to it."""

    label: str
    image: Any
    confounds: Any
    keep: Any
    t_r: float | None
    mean_fd: float | None


def collect_scans(
    images: Any,
    *,
    participants: Any,
    column: str,
    confounds: Any,
    sample_masks: Any,
    t_r: float | None,
) -> tuple[list[ImageScan], pd.DataFrame]:
    """Return the scans and the table of their covariates, without the images."""
    cells, table = _unpack(images, participants, column)
    files = [_bids_file(cell) for cell in cells]
    if table is None:
        table = _table_of_names(files)
    names = (
        table["participant_id"] if "participant_id" in table else [None] * len(table)
    )
    labels = [
        f"scan {i}" if name is None else f"scan {i} ({name})"
        for i, name in enumerate(names)
    ]
    given = FMRIPREP if isinstance(confounds, str) else None
    tables = [given] * len(cells) if given else _per_scan(confounds, "confounds", cells)
    masks = _per_scan(sample_masks, "sample_masks", cells)
    known = table["t_r"].tolist() if "t_r" in table else [None] * len(cells)
    beside = _Beside()
    scans = []
    for i, cell in enumerate(cells):
        image = open_image(cell, caller=CALLER, what=labels[i], n_dims=(4,))
        file = files[i]
        seconds = t_r if t_r is not None else _number(known[i])
        if seconds is None:
            seconds = beside.t_r(file) or header_t_r(image)
        keep = None if masks[i] is None else np.asarray(masks[i])
        if keep is not None and keep.dtype == bool:
            keep = np.flatnonzero(keep)
        scans.append(
            ImageScan(labels[i], cell, tables[i], keep, seconds, beside.mean_fd(file))
        )
    beside.warn()
    return scans, table


class _Beside:
    """What sidecars beside the images tell; those of one folder are listed once."""

    def __init__(self) -> None:
        self.skipped: Skipped = []
        self._folders: dict[Path, Sidecars] = {}

    def t_r(self, file: BidsFile | None) -> float | None:
        return None if file is None else self._open(file).repetition_time(file)

    def mean_fd(self, file: BidsFile | None) -> float | None:
        return None if file is None else self._open(file).mean_displacement(file)

    def warn(self) -> None:
        if self.skipped:
            file, reason = self.skipped[0]
            warnings.warn(
                f"{CALLER} could not read {len(self.skipped)} files beside the images, "
                f"first '{file}' ({reason}).",
                BrainSymphonyWarning,
                stacklevel=4,
            )

    def _open(self, file: BidsFile) -> Sidecars:
        folder = file.path.parent
        if folder not in self._folders:
            dataset = open_dataset(folder, "images")
            self._folders[folder] = Sidecars(dataset, self.skipped)
        return self._folders[folder]


def _unpack(
    images: Any, participants: Any, column: str
) -> tuple[list[Any], pd.DataFrame | None]:
    """Return one image per scan, and a table of covariates if there is one."""
    if isinstance(images, pd.DataFrame):
        if participants is not None:
            raise ValueError(
                f"{CALLER} needs participants once. Got a DataFrame of images and "
                "participants=. Put them into its column 'participant_id'."
            )
        if column not in images:
            raise BrainDataError(
                f"{CALLER} needs a column {column!r} of images. Got "
                f"{list(images.columns)[:8]}. Name it with column=."
            )
        cells, table = images[column].tolist(), images.drop(columns=column)
    else:
        is_one = is_path(images) or not hasattr(images, "__len__")
        if is_one:
            raise TypeError(
                f"{CALLER} needs a list of images or a DataFrame. Got "
                f"{type(images).__name__}. Pass [image] for one scan."
            )
        cells, table = list(images), _as_table(participants)
    if not cells:
        raise BrainDataError(
            f"{CALLER} needs at least one image. Got none. Check the pattern or the "
            "selection that listed them."
        )
    if table is not None and len(table) != len(cells):
        raise BrainDataError(
            f"{CALLER} needs one row of participants per image. Got {len(table)} rows "
            f"for {len(cells)} images. Bring both into the same order."
        )
    empty = [i for i, cell in enumerate(cells) if is_missing(cell)]
    if empty:
        raise BrainDataError(
            f"{CALLER} needs an image in every row. Got none, first in scan "
            f"{empty[0]}. Leave the row out."
        )
    return [str(cell) if is_path(cell) else cell for cell in cells], table


def _as_table(participants: Any) -> pd.DataFrame | None:
    if participants is None or isinstance(participants, pd.DataFrame):
        return participants
    names: Sequence[Hashable] = list(participants)
    return pd.DataFrame({"participant_id": [str(name) for name in names]})


def _bids_file(cell: Any) -> BidsFile | None:
    """Return what the name of a file tells, with the folder that it lies in."""
    if not is_path(cell):
        return None
    path = Path(cell)
    return parse_bids_name(path.parent.resolve() / path.name)


def _table_of_names(files: Sequence[BidsFile | None]) -> pd.DataFrame:
    """Return participants, sessions, tasks and runs, if all names have participants."""
    index = pd.RangeIndex(len(files))
    table = pd.DataFrame(index=index)
    known = [file for file in files if file is not None and "sub" in file.entities]
    if len(known) < len(files):
        return table
    table["participant_id"] = as_column([file.participant for file in known], index)
    for entity, name in NAMED.items():
        cells = [
            file.session if entity == "ses" else file.entities.get(entity)
            for file in known
        ]
        if any(cell is not None for cell in cells):
            table[name] = as_column(cells, index)
    return table


def _per_scan(values: Any, name: str, cells: Sequence[Any]) -> list[Any]:
    if values is None:
        return [None] * len(cells)
    if isinstance(values, str | pd.DataFrame) or len(values) != len(cells):
        raise BrainDataError(
            f"{CALLER} needs one entry of {name} per image. Got "
            f"{type(values).__name__} of length {len(values)} for {len(cells)} images. "
            "Pass a list in the order of the images, with None where there is none."
        )
    return [None if is_missing(value) else value for value in values]


def _number(value: Any) -> float | None:
    if is_missing(value):
        return None
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise BrainDataError(
            f"{CALLER} needs seconds above 0 in the column 't_r'. Got {value!r}. Leave "
            "the cell empty to take them from the image."
        )
    return seconds
