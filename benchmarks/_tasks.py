"""What to predict, from which scans, and which of them may learn together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.cohort_task import GROUP, Task, cohort_task
from bsym_sklearn.analysis.splits import Split
from bsym_sklearn.data import check_cohort, cut_windows

__all__ = ["GROUP", "Task", "cohort_task", "identification_task"]

N_BLOCKS = 3  # of neighbouring windows, per half of a scan


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
