"""The rows of a cohort of derivatives: scans, their connectomes, their covariates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bsym_sklearn.data.bids import (
    SOURCE_ENTITIES,
    BidsFile,
    Dataset,
    Skipped,
    read_participants,
    read_sessions,
)
from bsym_sklearn.data.connectomes import UnreadableFileError
from bsym_sklearn.data.containers import as_column
from bsym_sklearn.data.region_matching import Labelled
from bsym_sklearn.data.sidecars import Sidecars
from bsym_sklearn.exceptions import BrainDataError

# Columns of the entities of a scan; the others only occur where a file has them.
ALWAYS = ("task", "run")
SOMETIMES = tuple(e for e in SOURCE_ENTITIES if e not in ("sub", "ses", *ALWAYS))
Key = tuple[str, str | None]


@dataclass(frozen=True)
class Row:
    """One scan before it becomes a row of the table."""

    file: BidsFile
    fmri: str | np.ndarray | None = None
    sc: np.ndarray | None = None
    t_r: float | None = None
    mean_fd: float | None = None

    @property
    def key(self) -> Key:
        """Participant and session."""
        return self.file.participant, self.file.session

    def entity(self, name: str) -> str | None:
        """Return an entity of the scan; where a connectome was acquired tells none."""
        return None if self.fmri is None else self.file.entities.get(name)


def make_rows(
    series: Sequence[Labelled],
    regions: Sequence[str],
    dataset: Dataset,
    skipped: Skipped,
) -> list[Row]:
    """Return one row per series, with its repetition time and motion."""
    sidecars = Sidecars(dataset, skipped)
    rows = []
    for one in series:
        try:
            cell = one.content.load(regions)
        except UnreadableFileError as error:
            skipped.append((str(one.file.path), str(error)))
            continue
        t_r = sidecars.repetition_time(one.file) or one.content.t_r
        mean_fd = sidecars.mean_displacement(one.file)
        rows.append(Row(one.file, fmri=cell, t_r=t_r, mean_fd=mean_fd))
    if not rows:
        path, reason = skipped[-1]
        raise BrainDataError(
            "load_derivatives needs fmri files that it can use. Got none, the last "
            f"'{path}' ({reason}). Repair the files."
        )
    return rows


def join_connectomes(
    rows: Sequence[Row], connectomes: Sequence[Labelled], regions: Sequence[str]
) -> list[Row]:
    """Give every scan its connectome; connectomes without a scan become rows."""
    matrices: dict[Key, Row] = {}
    for one in connectomes:
        order = [one.labels.index(region) for region in regions]
        row = Row(one.file, sc=one.content[np.ix_(order, order)])
        matrices[row.key] = row
    joined, used = [], set()
    for row in rows:
        participant, _ = row.key
        key = row.key if row.key in matrices else (participant, None)
        used.add(key)
        found = matrices.get(key)
        joined.append(row if found is None else replace(row, sc=found.sc))
    joined.extend(row for key, row in matrices.items() if key not in used)
    return sorted(joined, key=_order)


def _order(row: Row) -> tuple[str | int, ...]:
    participant, session = row.key
    entities = row.file.entities
    run = entities.get("run", "")
    others = (entities.get(name, "") for name in SOMETIMES)
    return (
        participant,
        session or "",
        entities.get("task", ""),
        len(run),
        run,
        *others,
    )


def make_table(
    rows: Sequence[Row],
    datasets: Sequence[Dataset],
    skipped: Skipped,
    *,
    has_fmri: bool,
    has_sc: bool,
) -> pd.DataFrame:
    """Return the rows as a cohort, with the covariates of participants and sessions."""
    index = pd.RangeIndex(len(rows))
    columns: dict[str, pd.Series] = {
        "participant_id": as_column([row.key[0] for row in rows], index),
        "session_id": as_column([row.key[1] for row in rows], index),
    }
    for name in (*ALWAYS, *SOMETIMES):
        cells = [row.entity(name) for row in rows]
        if name in ALWAYS or any(cell is not None for cell in cells):
            columns[name] = as_column(cells, index)
    own: dict[str, pd.Series] = {}
    if has_fmri:
        own["t_r"] = pd.Series([row.t_r for row in rows], index, dtype=float)
        own["mean_fd"] = pd.Series([row.mean_fd for row in rows], index, dtype=float)
        own["fmri"] = as_column([row.fmri for row in rows], index)
    if has_sc:
        own["sc"] = as_column([row.sc for row in rows], index)
    covariates = _read_covariates(rows, datasets, skipped)
    clash = [
        name for name in covariates if name in {**columns, **own, "fmri": 0, "sc": 0}
    ]
    if clash:
        raise BrainDataError(
            "load_derivatives needs other names for the columns of participants.tsv "
            f"and sessions.tsv than its own. Got {clash[0]!r}. Rename that column."
        )
    return pd.DataFrame({**columns, **dict(covariates.items()), **own}, index=index)


def _read_covariates(
    rows: Sequence[Row], datasets: Sequence[Dataset], skipped: Skipped
) -> pd.DataFrame:
    """Return the covariates of each row; a session's value goes before the person's."""
    participants = [row.key[0] for row in rows]
    table = read_participants(datasets)
    found = pd.DataFrame(index=range(len(rows)))
    if table is not None:
        if not set(participants) & set(table.index):
            first = next(iter(table.index), "nobody")
            raise BrainDataError(
                "load_derivatives needs the participants of the files in "
                f"participants.tsv. Got {first!r} there and "
                f"{participants[0]!r} in the files. Use the same ids in both."
            )
        known = set(table.index)
        skipped.extend(
            ("participants.tsv", f"no row of {participant}, who has no covariates")
            for participant in dict.fromkeys(participants)
            if participant not in known
        )
        found = table.reindex(participants).reset_index(drop=True)
    sessions = read_sessions(datasets, participants)
    if sessions is not None:
        keys = pd.MultiIndex.from_tuples([row.key for row in rows])
        at_session = sessions.reindex(keys).reset_index(drop=True)
        found = at_session.combine_first(found)[
            [*found.columns, *at_session.columns.difference(found.columns, sort=False)]
        ]
    return found
