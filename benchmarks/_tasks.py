"""What to predict, from which scans, and which of them may learn together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from _models import GROUP
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from bsym_sklearn.data import check_cohort, cut_windows

N_INNER_FOLDS = 3
N_BLOCKS = 3  # of neighbouring windows, per half of a scan
SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class Task:
    """What to predict from which scans, and which of them may learn together."""

    name: str
    X: pd.DataFrame  # its column GROUP: scans that stay together within training
    y: np.ndarray
    kind: str  # "classification" or "regression"
    groups: np.ndarray  # no group is on both sides of a fold
    folds: list[tuple[np.ndarray, np.ndarray]]
    confounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for train, test in self.folds:
            check_disjoint(self.groups, train, test)

    @property
    def classes(self) -> np.ndarray:
        return np.unique(self.y)

    @property
    def metric(self) -> str:
        """Return the metric that sentences and pictures speak of."""
        if self.kind == "regression":
            return "r2"
        return "auroc" if len(self.classes) == 2 else "accuracy"

    @property
    def has(self) -> tuple[str, ...]:
        """Return what rows may ask for: modalities, and confounds if any."""
        modalities = tuple(m for m in ("fmri", "sc") if m in self.X)
        return modalities + (("confounds",) if self.confounds else ())


def check_disjoint(groups: np.ndarray, train: np.ndarray, test: np.ndarray) -> None:
    """Raise if a group is on both sides of a fold."""
    shared = np.intersect1d(groups[train], groups[test])
    if len(shared):
        raise ValueError(
            f"A fold needs different groups in training and test. Got {len(shared)} in "
            f"both, first {shared.tolist()[0]!r}. Split by group."
        )


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
        [(first, second), (second, first)],
    )


def cohort_task(
    cohort: pd.DataFrame,
    target: str,
    *,
    groups: str | None = None,
    kind: str = "auto",
    n_folds: int = 5,
    confounds: Sequence[str] = (),
) -> Task:
    """Predict a column from whole scans, with all scans of a group on one side.

    Scans without the target are left out.
    """
    missing = [c for c in (target, groups, *confounds) if c and c not in cohort]
    if missing:
        raise ValueError(
            f"The comparison needs the columns {missing} in participants.tsv. Got "
            f"{[c for c in cohort.columns if c not in ('fmri', 'sc')]}."
        )
    if target in confounds:
        raise ValueError(f"The target {target!r} cannot be a confound of itself.")
    cohort = cohort[cohort[target].notna()].reset_index(drop=True)
    y = cohort[target]
    if kind == "auto":
        is_number = pd.api.types.is_float_dtype(y) and (y % 1 != 0).any()
        many = pd.api.types.is_numeric_dtype(y) and y.nunique() > 10
        kind = "regression" if is_number or many else "classification"
    target_values = y.astype(str if kind == "classification" else float).to_numpy()
    if groups is None and "participant_id" in cohort:
        groups = "participant_id"
    members = cohort[groups] if groups else cohort.index.to_series()
    members = members.astype(str).to_numpy()
    splitter: Any = GroupKFold(n_folds, shuffle=True, random_state=SPLIT_SEED)
    if kind == "classification":
        _check_classes(target, target_values, members)
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=SPLIT_SEED)
    folds = list(splitter.split(members, target_values, members))
    X = cohort.drop(columns=target).assign(**{GROUP: members})
    return Task(target, X, target_values, kind, members, folds, tuple(confounds))


def _check_classes(target: str, y: np.ndarray, groups: np.ndarray) -> None:
    """Raise if a class is never in training when it is in the test."""
    for value in np.unique(y):
        n_groups = len(set(groups[y == value]))
        if n_groups < 2:
            raise ValueError(
                f"The comparison needs every value of {target!r} in at least 2 groups. "
                f"Got {value!r} in {n_groups}. Leave it out, or name people from parts "
                "of their scans with --windows 50."
            )


def inner_splits(
    task: Task, train: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Divide training rows again, groups undivided; None if there are too few."""
    groups, y = task.X[GROUP].to_numpy()[train], task.y[train]
    if task.kind == "regression":
        n = min(N_INNER_FOLDS, len(np.unique(groups)))
        splitter: Any = GroupKFold(n) if n > 1 else None
    else:
        n = min(N_INNER_FOLDS, *(len(set(groups[y == c])) for c in np.unique(y)))
        splitter = StratifiedGroupKFold(n) if n > 1 else None
    return splitter and list(splitter.split(groups, y, groups))
