"""What BIDS files beside a scan tell of it: repetition time and head motion."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bsym_sklearn.data.bids import BidsFile, Dataset, Skipped, parse_bids_name
from bsym_sklearn.data.recording import MISSING_NUMBERS

# XCP-D writes SamplingFrequency="TR" beside a timeseries and RepetitionTime beside the
# denoised bold of the same scan.
TIMED_SUFFIXES = ("timeseries", "bold")
# Suffix and desc of the tables with a column framewise_displacement in mm, best first:
# XCP-D, XCP-D before 0.10, fMRIPrep, fMRIPrep before 20.2. XCP-D's outliers.tsv has a
# column of that name too, but of zeros and ones.
MOTION_TABLES = (
    ("motion", None),
    ("motion", "filtered"),
    ("timeseries", "confounds"),
    ("regressors", "confounds"),
)
DISPLACEMENT = "framewise_displacement"
LONGEST_SECONDS = 60  # between volumes; more are milliseconds, which BIDS forbids


class Sidecars:
    """Reads sidecars and motion tables of the scans of one dataset, each once."""

    def __init__(self, dataset: Dataset, skipped: Skipped) -> None:
        self.dataset = dataset
        self.skipped = skipped
        self._listed: dict[Path, list[BidsFile]] = {}
        self._times: dict[Path, float | None] = {}

    def repetition_time(self, scan: BidsFile) -> float | None:
        """Return seconds from the nearest sidecar that has them, or None.

        As in BIDS, a sidecar holds for a scan if its entities are among the scan's,
        and the nearest one wins: first the scan's folder and those above it, then the
        same folders of the dataset around. Entities of processing are not compared,
        since they do not change the time between volumes.
        """
        for folder in self._folders(scan):
            fitting = [
                file
                for file in self._list(folder)
                if file.extension == ".json"
                and file.suffix in TIMED_SUFFIXES
                and file.source <= scan.source
            ]
            fitting.sort(key=lambda f: (-len(f.source), TIMED_SUFFIXES.index(f.suffix)))
            times = (self._read_time(file.path) for file in fitting)
            found = next((time for time in times if time is not None), None)
            if found is not None:
                return found
        return None

    def mean_displacement(self, scan: BidsFile) -> float | None:
        """Return the mean framewise displacement in mm, or None if no table tells."""
        beside = [
            file
            for file in self._list(scan.path.parent)
            if file.extension == ".tsv" and file.source == scan.source
        ]
        for suffix, desc in MOTION_TABLES:
            for file in beside:
                if (file.suffix, file.entities.get("desc")) == (suffix, desc):
                    return self._read_displacement(file.path)
        return None

    def _folders(self, scan: BidsFile) -> Iterator[Path]:
        """Yield where sidecars of a scan may lie, nearest first."""
        own = scan.path.parent
        inner = own.relative_to(self.dataset.folder).parts
        start = next((i for i, part in enumerate(inner) if part[:4] == "sub-"), 0)
        yield from (own, *own.parents[: len(inner)])
        for root in self.dataset.roots[1:]:
            parts = inner[start:]
            yield from (root.joinpath(*parts[:n]) for n in range(len(parts), -1, -1))

    def _list(self, folder: Path) -> list[BidsFile]:
        if folder not in self._listed:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
            paths = [path for path in paths if path.suffix in (".json", ".tsv")]
            parsed = [parse_bids_name(path) for path in paths]
            self._listed[folder] = [file for file in parsed if file is not None]
        return self._listed[folder]

    def _read_time(self, path: Path) -> float | None:
        if path not in self._times:
            self._times[path] = self._parse_time(path)
        return self._times[path]

    def _parse_time(self, path: Path) -> float | None:
        reason = self.dataset.refuse(path)
        if reason is None:
            try:
                content = json.loads(path.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError) as error:
                reason = f"cannot be read as JSON ({error})"
        if reason is None:
            time = content.get("RepetitionTime") if isinstance(content, dict) else None
            if time is None or _is_repetition_time(time):
                return None if time is None else float(time)
            reason = f"RepetitionTime is {time!r} instead of a number of seconds"
        self.skipped.append((str(path), reason))
        return None

    def _read_displacement(self, path: Path) -> float | None:
        reason = self.dataset.refuse(path)
        if reason is None:
            try:
                column = pd.read_csv(
                    path,
                    sep="\t",
                    usecols=[DISPLACEMENT],
                    na_values=sorted(MISSING_NUMBERS),
                    encoding="utf-8-sig",
                )[DISPLACEMENT]
                mean = float(column.mean())  # the first volume has none
            except (OSError, ValueError, TypeError, csv.Error) as error:
                reason = f"no {DISPLACEMENT} can be read ({error})"
        if reason is None and math.isfinite(mean):
            return mean
        self.skipped.append((str(path), reason or f"{DISPLACEMENT} holds no number"))
        return None


def _is_repetition_time(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= LONGEST_SECONDS  # type: ignore[operator]
