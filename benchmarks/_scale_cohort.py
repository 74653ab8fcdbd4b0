"""A generated cohort of many scans, as files and as shards, and its page cache."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

N_DIFFERENT = 64  # scans that differ; what is in them changes no measurement
TABLE = "participants.tsv"
BLOCK = 1 << 20  # bytes of a raw read


class Size(NamedTuple):
    """Scans, time points and regions of a generated cohort."""

    n_scans: int
    n_timepoints: int
    n_regions: int

    @property
    def megabytes(self) -> float:
        """Return the size of the values in float32."""
        return self.n_scans * self.n_timepoints * self.n_regions * 4 / 1e6


def make_cohort_folder(folder: Path, size: Size) -> None:
    """Write one .npy file per scan and a table of them."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(min(N_DIFFERENT, size.n_scans)):
        values = rng.standard_normal((size.n_timepoints, size.n_regions), np.float32)
        file = io.BytesIO()
        np.save(file, values)
        contents.append(file.getvalue())
    (folder / "fmri").mkdir(parents=True)
    rows = ["participant_id\tfmri"]
    for i in range(size.n_scans):
        name = f"fmri/sub-{i:06d}.npy"
        (folder / name).write_bytes(contents[i % len(contents)])
        rows.append(f"sub-{i:06d}\t{name}")
    (folder / TABLE).write_text("\n".join(rows) + "\n")


def keep_rows(folder: Path, table: str, n_scans: int) -> None:
    """Let the cohort have the first rows of a table only."""
    rows = table.splitlines(keepends=True)
    (folder / TABLE).write_text("".join(rows[: n_scans + 1]))


def data_files(folder: Path) -> list[Path]:
    """Return all files of a folder but its tables, in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.suffix != ".tsv"]


def forget(files: Iterable[Path]) -> bool:
    """Drop files from the page cache, if the system can; say so."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # only what is on the disk can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return True


def read_raw(files: Iterable[Path]) -> int:
    """Read files from end to end; return the bytes."""
    n_bytes = 0
    buffer = memoryview(bytearray(BLOCK))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while n := file.readinto(buffer):
                n_bytes += n
    return n_bytes
