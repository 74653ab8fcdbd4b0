"""A column of a cohort as something to predict, with the splits to do it on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.splits import (
    Split,
    check_disjoint,
    grouped_folds,
    leave_one_group_out,
    names_of,
    task_of,
)
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

GROUP = "split_group"  # column of X: scans that stay together within training rows


@dataclass(frozen=True, eq=False)
class Task:
    """What to predict from which scans, and which of them may learn together.

    Parameters
    ----------
    name : str
        What is predicted.
    X : DataFrame
        Scans; its column ``split_group`` names those that stay together within
        training rows.
    y : ndarray of shape (n_scans,)
        Target.
    kind : {"classification", "regression"}
        Of the target.
    groups : ndarray of shape (n_scans,)
        No group is on both sides of a split.
    splits : list of Split
        What to learn from and to be judged on.
    confounds : tuple of str, default=()
        Columns of `X`.

    Raises
    ------
    ValueError
        If a group is on both sides.

    Examples
    --------
    >>> X, y = pd.DataFrame({"fmri": ["a.npy", "b.npy"]}), np.array([0, 1])
    >>> Task("state", X, y, "classification", np.arange(2), []).has
    ('fmri',)
    """

    name: str
    X: pd.DataFrame
    y: np.ndarray
    kind: str
    groups: np.ndarray
    splits: list[Split]
    confounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in self.splits:
            check_disjoint(self.groups, split)

    @property
    def has(self) -> tuple[str, ...]:
        """What models may ask for: modalities, and confounds if any."""
        modalities = tuple(m for m in ("fmri", "sc") if m in self.X)
        return modalities + (("confounds",) if self.confounds else ())


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

    Scans without the target are left out.

    Parameters
    ----------
    cohort : DataFrame
        One row per scan.
    target : str
        Column to predict.
    groups : str or None, default=None
        Column whose rows stay on one side. None takes ``participant_id``, or each scan
        as its own.
    kind : {"auto", "classification", "regression"}, default="auto"
        See :func:`~bsym_sklearn.analysis.splits.task_of`.
    n_folds, n_repeats : int, default=5, 1
        See :func:`~bsym_sklearn.analysis.splits.grouped_folds`.
    leave_out : str or None, default=None
        Column, such as the site, of which each value is tested once after learning from
        the others, in place of folds.
    external : DataFrame or None, default=None
        Another cohort, which is the only test.
    confounds : sequence of str, default=()
        Columns that the model ``"confounds"`` reads.
    seed : int, default=0
        Draws the folds.

    Returns
    -------
    Task

    Raises
    ------
    ValueError
        If a column is missing, or the splits cannot be made.

    Examples
    --------
    >>> from bsym_sklearn.data import make_cohort
    >>> task = cohort_task(make_cohort(n_scans=12).data, "site", n_folds=2)
    >>> task.kind, [split.name for split in task.splits], task.has
    ('classification', ['fold 1', 'fold 2'], ('fmri', 'sc'))
    """
    n_own = int(cohort[target].notna().sum()) if target in cohort else 0
    if external is not None:
        _check_regions_agree(cohort, external)
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
    cohort = with_target(cohort, target)
    kind = task_of(cohort[target], kind)
    y = cohort[target].astype(str if kind == "classification" else float).to_numpy()
    if groups is None and "participant_id" in cohort:
        groups = "participant_id"
    members = names_of(cohort[groups] if groups else cohort.index, "group")
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


def with_target(cohort: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return the scans that have a target, with a warning if some have none.

    Parameters
    ----------
    cohort : DataFrame
        One row per scan.
    target : str
        Column.

    Returns
    -------
    DataFrame
        Numbered anew.

    Warns
    -----
    BrainSymphonyWarning
        If scans are left out.

    Examples
    --------
    >>> from bsym_sklearn.data import make_cohort
    >>> len(with_target(make_cohort(n_scans=12).data, "site"))
    12
    """
    lacking = np.flatnonzero(cohort[target].isna())
    if len(lacking):
        warnings.warn(
            f"{len(lacking)} of {len(cohort)} scans have no {target!r} and are left "
            f"out, first scan {lacking[0]}.",
            BrainSymphonyWarning,
            stacklevel=3,
        )
    return cohort[cohort[target].notna()].reset_index(drop=True)


def _check_regions_agree(cohort: pd.DataFrame, external: pd.DataFrame) -> None:
    """Raise if two cohorts say that their regions are others, or in another order."""
    tables = [one.attrs.get("regions") for one in (cohort, external)]
    labels = [list(t["label"]) for t in tables if t is not None and "label" in t]
    if len(labels) == 2 and labels[0] != labels[1]:
        raise BrainDataError(
            "The comparison needs the same regions in the external cohort. Got "
            f"{labels[1][:3]}, ... instead of {labels[0][:3]}, ... Bring its scans "
            "into this order with align_regions."
        )
