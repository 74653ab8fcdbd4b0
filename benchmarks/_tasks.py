"""What to predict, from which scans, and which of them may learn together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.splits import (
    Split,
    check_disjoint,
    grouped_folds,
    leave_one_group_out,
    task_of,
)
from bsym_sklearn.data import check_cohort, cut_windows

GROUP = "split_group"  # column of X: scans that stay together within training rows
N_BLOCKS = 3  # of neighbouring windows, per half of a scan


@dataclass(frozen=True, eq=False)
class Task:
    """What to predict from which scans, and which of them may learn together."""

    name: str
    X: pd.DataFrame  # its column GROUP: scans that stay together within training
    y: np.ndarray
    kind: str  # "classification" or "regression"
    groups: np.ndarray  # no group is on both sides of a split
    splits: list[Split]
    confounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in self.splits:
            check_disjoint(self.groups, split)

    @property
    def has(self) -> tuple[str, ...]:
        """Return what rows may ask for: modalities, and confounds if any."""
        modalities = tuple(m for m in ("fmri", "sc") if m in self.X)
        return modalities + (("confounds",) if self.confounds else ())


def identification_task(
    cohort: pd.DataFrame, window: int, *, target: str = "participant_id"
) -> Task:
    """Name the person from a window: learn in one half of each scan, test in the other.

    Scans are halved before anything else, and every window is a scan of its own to all
    that follows. The connectome is left out: it would name the person by itself.
    Scans without fMRI are left out too.
    """
    if "fmri" not in cohort or target not in cohort:
        raise ValueError(
            f"Identification needs the columns 'fmri' and {target!r} in "
            f"participants.tsv. Got {list(cohort.columns)}."
        )
    cohort = cohort[cohort["fmri"].notna()].reset_index(drop=True)
    cohort = cohort.drop(columns="sc", errors="ignore")
    scans = check_cohort(cohort)
    series = [scans.read_fmri(i, None) for i in range(len(scans))]
    first_halves = pd.Series([x[: len(x) // 2] for x in series], dtype=object)
    second_halves = pd.Series([x[len(x) // 2 :] for x in series], dtype=object)
    halves = [
        cut_windows(cohort.assign(fmri=cells, half=half), window)
        for half, cells in enumerate((first_halves, second_halves))
    ]
    X = pd.concat(halves, ignore_index=True)
    y = X[target].astype(str).to_numpy()
    order = X.groupby(["scan", "half"]).cumcount()
    n_windows = X.groupby(["scan", "half"])["scan"].transform("size")
    block = order * N_BLOCKS // n_windows  # neighbours share slow fluctuations
    X[GROUP] = [
        f"{scan}-{half}-{k}"
        for scan, half, k in zip(X["scan"], X["half"], block, strict=True)
    ]
    groups = X["half"].to_numpy()
    first, second = np.flatnonzero(groups == 0), np.flatnonzero(groups == 1)
    return Task(
        f"{target} from windows of {window} time points",
        X,
        y,
        "classification",
        groups,
        [Split(first, second, "second half"), Split(second, first, "first half")],
    )


def cohort_task(
    cohort: pd.DataFrame,
    target: str,
    *,
    groups: str | None = None,
    kind: str = "auto",
    n_folds: int = 5,
    n_repeats: int = 1,
    leave_out: str | None = None,
    external: pd.DataFrame | None = None,
    confounds: Sequence[str] = (),
    seed: int = 0,
) -> Task:
    """Predict a column from whole scans, with all scans of a group on one side.

    With `leave_out`, a column such as the site, each of its values is tested once after
    learning from the others; with `external`, another cohort is the only test. Scans
    without the target are left out.
    """
    n_own = int(cohort[target].notna().sum()) if target in cohort else 0
    if external is not None:
        cohort = pd.concat([cohort, external], ignore_index=True)
    needed = (target, groups, leave_out, *confounds)
    missing = [c for c in needed if c and c not in cohort]
    if missing:
        raise ValueError(
            f"The comparison needs the columns {missing} in participants.tsv. Got "
            f"{[c for c in cohort.columns if c not in ('fmri', 'sc')]}."
        )
    if target in confounds:
        raise ValueError(f"The target {target!r} cannot be a confound of itself.")
    cohort = cohort[cohort[target].notna()].reset_index(drop=True)
    kind = task_of(cohort[target], kind)
    y = cohort[target].astype(str if kind == "classification" else float).to_numpy()
    if groups is None and "participant_id" in cohort:
        groups = "participant_id"
    members = cohort[groups] if groups else cohort.index.to_series()
    members = members.astype(str).to_numpy()
    if external is not None:
        rows = np.arange(len(y))
        splits = [Split(rows[:n_own], rows[n_own:], "external")]
    elif leave_out is not None:
        splits = leave_one_group_out(cohort[leave_out], members)
    else:
        splits = grouped_folds(
            y, members, task=kind, n_folds=n_folds, n_repeats=n_repeats, seed=seed
        )
    X = cohort.drop(columns=target).assign(**{GROUP: members})
    return Task(target, X, y, kind, members, splits, tuple(confounds))
