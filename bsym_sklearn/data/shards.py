"""Cohorts of many scans: a few large files that are read at random places."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import pandas as pd

from bsym_sklearn.data.checks import check_count, check_option
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.containers import MODALITIES
from bsym_sklearn.data.folder import load_cohort
from bsym_sklearn.data.recording import Recording
from bsym_sklearn.data.shardfile import (
    Member,
    cohort_of,
    is_whole,
    lay_out,
    write_shard,
)
from bsym_sklearn.data.transformer import no_table_error
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.files import write_table

SHARDS = "shards"
FLOATS = (None, "float16", "float32", "float64")
MAX_NAME = 60  # characters of a participant in the name of a member; tar has 100


@dataclass
class _Shard:
    """What one shard will hold."""

    name: str
    recordings: list[Recording] = field(default_factory=list)
    entries: list[tuple] = field(default_factory=list)

    @property
    def members(self) -> list[Member]:
        return lay_out(self.entries)


def save_shards(
    X: Any,
    folder: str | os.PathLike[str],
    *,
    scans_per_shard: int = 256,
    dtype: Literal["float16", "float32", "float64"] | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Write a cohort as a folder of a few large files, and load it.

    `load_cohort` reads the folder into a DataFrame whose cells are short texts; a scan
    is opened when it is needed, and of a long one only the window that is asked for is
    read. The values are those of `X`, to the bit.

    A killed conversion goes on where it was: finished shards are kept if they are
    whole, by their checksums. No shard has its name before it is whole, and the folder
    is a cohort only when all of them are.

    Parameters
    ----------
    X : DataFrame, list, tuple, Series, ndarray, Tensor, SliceDict or Cohort
        Scans in any form that `check_cohort` accepts, but for a 2-D table. Files are
        read one at a time.
    folder : path
        A new folder, or one in which the same conversion began. It gets
        ``participants.tsv``, ``regions.tsv`` (if ``X.attrs`` has regions) and
        ``shards/00000.tar``, ... Each is an uncompressed tar of ``.npy`` files with an
        index at its beginning, which any tar program unpacks.
    scans_per_shard : int, default=256
        Rows of `X` per shard, at least 1. 256 scans of 200 time points and 450 regions
        take 92 MB in float32.
    dtype : {"float16", "float32", "float64"} or None, default=None
        Type to store the values in; None keeps that of each scan.
    n_jobs : int or None, default=None
        Processes that write shards, as in joblib.

    Returns
    -------
    cohort : DataFrame
        What `load_cohort` returns for the folder. The index of `X` is not kept.

    Raises
    ------
    BrainDataError
        If a scan cannot be used or does not fit into `dtype`, or if the folder holds
        something else.
    ValueError
        If an option is unknown.

    See Also
    --------
    load_cohort : Reads the folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from bsym_sklearn.data import check_cohort
    >>> scans = np.random.default_rng(0).normal(size=(3, 9, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     X = save_shards(scans, folder, scans_per_shard=2)
    ...     cohort = check_cohort(X)
    ...     same = np.array_equal(cohort.read_fmri(2, np.float64), scans[2])
    >>> [Path(cell).parent.name for cell in X["fmri"]], same
    (['00000.tar', '00000.tar', '00001.tar'], True)
    """
    check_count("scans_per_shard", scans_per_shard)
    check_option("dtype", dtype, FLOATS)
    cohort = check_cohort(
        X,
        caller="save_shards",
        constant_regions="mask",  # who reads the scans has a policy
        symmetric_sc="allow",
        min_timepoints=1,
    )
    if cohort.is_table:
        raise no_table_error("save_shards")
    root = Path(folder)
    shards, cells = _plan(cohort, scans_per_shard, dtype)
    table = _participants(cohort, cells)
    name = str(joblib.hash([(shard.name, shard.entries) for shard in shards]))
    _check_folder(root, name)
    (root / SHARDS).mkdir(parents=True, exist_ok=True)
    joblib.Parallel(n_jobs)(
        joblib.delayed(_write)(root / SHARDS, name, shard) for shard in shards
    )
    for part in (root / SHARDS).glob(".*.tar"):
        part.unlink(missing_ok=True)  # of a run that was killed
    if cohort.regions is not None:
        write_table(root / "regions.tsv", cohort.regions)
    write_table(root / "participants.tsv", table)  # last: now it is a cohort
    return load_cohort(root)


def _plan(
    cohort: Cohort, scans_per_shard: int, dtype: str | None
) -> tuple[list[_Shard], pd.DataFrame]:
    """Say which scan goes where, and what the cells of the table will be."""
    participants = _participant_names(cohort)
    shards: dict[str, _Shard] = {}
    known: dict[str, str] = {}  # connectomes that sessions of one person share
    cells: dict[str, list[str | None]] = {m: [None] * len(cohort) for m in MODALITIES}
    for i, scan in enumerate(zip(cohort.fmri, cohort.sc, strict=True)):
        shard_name = f"{i // scans_per_shard:05d}.tar"
        for modality, recording in zip(MODALITIES, scan, strict=True):
            if recording is None:
                continue
            source = str(joblib.hash(recording.fingerprint()))
            if modality == "sc" and source in known:
                cells[modality][i] = known[source]
                continue
            member = f"{i:06d}{participants[i]}.{modality}.npy"
            shard = shards.setdefault(shard_name, _Shard(shard_name))
            stored = recording.dtype if dtype is None else np.dtype(dtype)
            shard.recordings.append(recording)
            shard.entries.append((member, recording.shape, stored, source))
            cells[modality][i] = f"{SHARDS}/{shard_name}/{member}"
            if modality == "sc":
                known[source] = f"{SHARDS}/{shard_name}/{member}"
    return list(shards.values()), pd.DataFrame(
        {modality: cells[modality] for modality in cohort.modalities}, dtype=object
    )


def _participant_names(cohort: Cohort) -> list[str]:
    """Return what of the participants' names is safe in the name of a file."""
    covariates = cohort.covariates
    if covariates is None or "participant_id" not in covariates:
        return [""] * len(cohort)
    texts = covariates["participant_id"].astype(str)
    return ["_" + re.sub(r"[^A-Za-z0-9]+", "-", t)[:MAX_NAME] for t in texts]


def _participants(cohort: Cohort, cells: pd.DataFrame) -> pd.DataFrame:
    """Return participants.tsv."""
    covariates = pd.DataFrame(index=cells.index)
    if cohort.covariates is not None:
        covariates = cohort.covariates.reset_index(drop=True)
    table = pd.concat([covariates, cells], axis=1)
    names = [str(name).strip() for name in table.columns]
    if len(set(names)) < len(names):
        raise BrainDataError(
            f"save_shards needs columns of different names. Got {names}. Rename or "
            "drop one."
        )
    return table


def _check_folder(root: Path, cohort: str) -> None:
    """Raise unless the folder is empty of cohorts, or of shards of this one."""
    found = [cohort_of(shard) for shard in sorted((root / SHARDS).glob("*.tar"))]
    others = {name for name in found if name not in (cohort, None)}
    is_other = (root / "participants.tsv").exists() and cohort not in found
    if others or is_other:
        raise BrainDataError(
            "save_shards needs a new folder, or one in which the same conversion "
            f"began. Got '{root}' with another cohort, or with this one converted from "
            "other files or in another way. Name another folder, or delete that one."
        )


def _write(folder: Path, cohort: str, shard: _Shard) -> None:
    """Write a shard, unless it is there."""
    path = folder / shard.name
    members = shard.members
    if not is_whole(path, cohort, members):
        write_shard(path, cohort, members, _values(shard.recordings, members))


def _values(
    recordings: Sequence[Recording], members: Sequence[Member]
) -> Iterator[np.ndarray]:
    """Read one scan after the other as it will be stored."""
    for recording, member in zip(recordings, members, strict=True):
        with np.errstate(over="ignore"):
            values = recording.read(np.dtype(member.dtype))
        if not np.isfinite(values).all():
            raise BrainDataError(
                f"save_shards needs finite values that fit into {values.dtype}. Got "
                f"others in {recording.modality!r}, first in {recording.label}. Store "
                "them in a wider dtype, or rescale them."
            )
        yield values
