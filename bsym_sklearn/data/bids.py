"""BIDS datasets: names of files, the folders above them, participants and sessions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bsym_sklearn.data.tsv import parse_covariate, read_tsv
from bsym_sklearn.exceptions import BrainDataError

# What tells one acquisition from another; space, res, den, desc, stat and the atlas
# only tell how it was processed.
SOURCE_ENTITIES = (
    *("sub", "ses", "task", "acq", "ce"),
    *("rec", "dir", "run", "echo", "part"),
)
# XCP-D before 0.7 and from 26 on: atlas; XCP-D 0.7 to 0.14: seg; MRtrix3_connectome:
# parc.
ATLAS_ENTITIES = ("atlas", "seg", "parc")
ENTITY = re.compile(r"([A-Za-z]+)-([^-_./\\][^_./\\]*)")
# <dataset>/derivatives/<pipeline>/derivatives/<workflow> is the deepest usual nesting.
N_LEVELS_UP = 4
DESCRIPTION = "dataset_description.json"

Skipped = list[tuple[str, str]]


@dataclass(frozen=True)
class BidsFile:
    """A file whose name follows BIDS: entities, suffix, extension."""

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    @cached_property
    def atlas(self) -> str:
        """Name of the atlas, empty if the name has none."""
        found = (self.entities[key] for key in ATLAS_ENTITIES if key in self.entities)
        return next(found, "")

    @cached_property
    def source(self) -> frozenset[tuple[str, str]]:
        """The entities that tell which acquisition this is."""
        kept = {k: v for k, v in self.entities.items() if k in SOURCE_ENTITIES}
        return frozenset(kept.items())

    @property
    def participant(self) -> str:
        """Participant as in participants.tsv."""
        return f"sub-{self.entities['sub']}"

    @property
    def session(self) -> str | None:
        """Session as in sessions.tsv."""
        return f"ses-{self.entities['ses']}" if "ses" in self.entities else None


@dataclass(frozen=True)
class Dataset:
    """A folder of derivatives, and the datasets that it lies in, nearest first."""

    folder: Path
    roots: tuple[Path, ...]

    def refuse(self, path: Path) -> str | None:
        """Say why a file is not read, or None if it may be."""
        if not path.exists():
            return "a link to a file that is not here; with DataLad, get it first"
        if not path.resolve().is_relative_to(self.roots[-1]):
            return "a link that leads out of the dataset; copy the file into it"
        return None


def parse_bids_name(path: Path) -> BidsFile | None:
    """Return the parts of a BIDS name, or None if the name is none."""
    stem, _, extension = path.name.partition(".")
    *pairs, suffix = stem.split("_")
    matches = [ENTITY.fullmatch(pair) for pair in pairs]
    entities = {match[1]: match[2] for match in matches if match is not None}
    if len(entities) < len(pairs) or not suffix.isalnum() or not extension:
        return None
    return BidsFile(path, entities, suffix, f".{extension}")


def open_dataset(folder: str | os.PathLike[str], name: str) -> Dataset:
    """Return the dataset of a folder that a parameter `name` gave."""
    path = Path(folder)
    if not path.is_dir():
        raise BrainDataError(
            f"load_derivatives needs a folder in {name}. Got '{path}', which is none. "
            "Pass the folder that holds sub-*."
        )
    path = path.resolve()
    return Dataset(path, _roots(path))


def _roots(folder: Path) -> tuple[Path, ...]:
    """Return the folder and those above it, up to the outermost dataset."""
    above = (folder, *folder.parents[:N_LEVELS_UP])
    last = 0
    for i, path in enumerate(above):
        if (path / DESCRIPTION).is_file() or (i and above[i - 1].name == "derivatives"):
            last = i
    return above[: last + 1]


def walk_bids_files(dataset: Dataset, skipped: Skipped) -> Iterator[BidsFile]:
    """Yield every file with a BIDS name; links to folders are listed, not followed."""
    for folder, folders, names in os.walk(dataset.folder):
        path = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        skipped.extend(
            (str(path / name), "a link to a folder; pass that folder itself")
            for name in folders
            if (path / name).is_symlink()
        )
        for name in sorted(names):
            file = parse_bids_name(path / name)
            if file is not None:
                yield file


def read_participants(datasets: Sequence[Dataset]) -> pd.DataFrame | None:
    """Return the nearest participants.tsv, one row per participant, or None.

    The index is ``participant_id`` with its prefix ``sub-``.
    """
    for dataset in datasets:
        for root in dataset.roots:
            path = root / "participants.tsv"
            if path.is_file() and dataset.refuse(path) is None:
                return _keyed(path, "participant_id", "sub-").apply(parse_covariate)
    return None


def read_sessions(
    datasets: Sequence[Dataset], participants: Sequence[str]
) -> pd.DataFrame | None:
    """Return all sub-*_sessions.tsv, indexed by participant and session, or None."""
    tables = {}
    for participant in dict.fromkeys(participants):
        path = _find_sessions(datasets, participant)
        if path is not None:
            tables[participant] = _keyed(path, "session_id", "ses-")
    if not tables:
        return None
    return pd.concat(tables).apply(parse_covariate)


def _find_sessions(datasets: Sequence[Dataset], participant: str) -> Path | None:
    name = f"{participant}_sessions.tsv"
    for dataset in datasets:
        for root in dataset.roots:
            path = root / participant / name
            if path.is_file() and dataset.refuse(path) is None:
                return path
    return None


def _keyed(path: Path, key: str, prefix: str) -> pd.DataFrame:
    """Read a table and make one column of it the index."""
    table = read_tsv(path, caller="load_derivatives")
    if key not in table.columns:
        raise BrainDataError(
            f"load_derivatives needs a column {key!r} in '{path}'. Got "
            f"{list(table.columns)}. Rename the column that names the rows."
        )
    names = [prefix + str(cell).strip().removeprefix(prefix) for cell in table[key]]
    ids = pd.Index(names)
    if not ids.is_unique:
        raise BrainDataError(
            f"load_derivatives needs every {key} once in '{path}'. Got "
            f"{ids[ids.duplicated()][0]!r} twice. Keep one row of it; what differs "
            "between sessions belongs into sub-*_sessions.tsv."
        )
    return table.drop(columns=key).set_axis(ids, axis=0)
