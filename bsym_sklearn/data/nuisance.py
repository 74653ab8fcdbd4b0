"""What is regressed out of a scan: tables of confounds, and volumes to leave out.

Shape letters: T volumes, C confounds.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bsym_sklearn.data.recording import MISSING_NUMBERS, is_path
from bsym_sklearn.exceptions import BrainDataError

CALLER = "parcellate"
FMRIPREP = "fmriprep"
DenoiseStrategy = Literal["simple", "scrubbing", "compcor", "ica_aroma"]
STRATEGIES = ("simple", "scrubbing", "compcor", "ica_aroma")


def load_fmriprep(
    image: Any, strategy: str, label: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the confounds (T, C) beside an image, and which volumes to keep."""
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    if not is_path(image):
        raise BrainDataError(
            f"{CALLER} needs paths with confounds='{FMRIPREP}', whose tables lie "
            f"beside the images. Got {type(image).__name__}, first in {label}. Pass "
            "paths, or the tables as confounds=[...]."
        )
    try:
        table, keep = load_confounds_strategy(str(image), denoise_strategy=strategy)
    except (OSError, ValueError, LookupError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise BrainDataError(
            f"{CALLER} needs the confounds that fMRIPrep writes beside '{image}', for "
            f"denoise_strategy={strategy!r}. Got {type(error).__name__} ({reason}), "
            f"first in {label}. Put *_desc-confounds_timeseries.tsv and .json there, "
            "or choose another strategy."
        ) from error
    return read_table(table, label), keep


def read_table(table: Any, label: str) -> np.ndarray:
    """Return confounds (T, C) of a table, an array or a file, without gaps.

    What is missing in the first volume only, as derivatives and displacements are, is
    that of the second.
    """
    if is_path(table):
        table = _read_file(Path(table), label)
    try:
        frame = pd.DataFrame(table).astype(float)
    except (TypeError, ValueError) as error:
        raise BrainDataError(
            f"{CALLER} needs numbers in confounds. Got {type(table).__name__} "
            f"({error}), first in {label}. Keep the columns of numbers only."
        ) from error
    frame.iloc[:2] = frame.iloc[:2].bfill()
    gaps = ~np.isfinite(frame.to_numpy()).all(axis=0)
    if gaps.any():
        raise BrainDataError(
            f"{CALLER} needs finite confounds. Got gaps in column "
            f"{frame.columns[gaps.argmax()]!r}, first in {label}. Leave the column "
            "out, or interpolate it."
        )
    return frame.to_numpy()


def check_length(confounds: np.ndarray | None, n_volumes: int, label: str) -> None:
    """Raise if confounds do not fit a scan, or would leave nothing of it."""
    if confounds is None:
        return
    if len(confounds) != n_volumes:
        raise BrainDataError(
            f"{CALLER} needs one row of confounds per volume. Got {len(confounds)} "
            f"rows for {n_volumes} volumes, first in {label}. Bring images and "
            "confounds into the same order."
        )
    if confounds.shape[1] >= n_volumes - 1:
        raise BrainDataError(
            f"{CALLER} needs fewer confounds than volumes. Got {confounds.shape[1]} "
            f"for {n_volumes} volumes, which would leave nothing, first in {label}. "
            f"Select columns; confounds='{FMRIPREP}' selects those of a strategy."
        )


def _read_file(path: Path, label: str) -> pd.DataFrame:
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        return pd.read_csv(
            path, sep=separator, na_values=sorted(MISSING_NUMBERS), encoding="utf-8-sig"
        )
    except (OSError, ValueError, csv.Error) as error:
        raise BrainDataError(
            f"{CALLER} needs readable tables of confounds. Got '{path}' ({error}), "
            f"first in {label}. Write it as .tsv or .csv with a row of names."
        ) from error
