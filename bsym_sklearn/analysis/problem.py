"""What is predicted from what, and who must not be on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing, check_consistent_length

from bsym_sklearn.analysis.identity import hash_of
from bsym_sklearn.analysis.splits import (
    Split,
    as_splits,
    check_disjoint,
    names_of,
    task_of,
)
from bsym_sklearn.data import check_cohort
from bsym_sklearn.estimators.seen import person
from bsym_sklearn.exceptions import BrainDataError


@dataclass(frozen=True, eq=False)
class Problem:
    """What is predicted from what.

    Parameters
    ----------
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.
    y : ndarray of shape (n_scans,)
        Target.
    groups : ndarray of shape (n_scans,)
        Whose scans stay on one side: participants, or what was asked for.
    task : {"classification", "regression"}
        Kind of target.
    people : ndarray of shape (n_scans,) or None, default=None
        Participants as they are written, missing where one is not named. None if they
        are not known.

    Examples
    --------
    >>> y = np.array(["b", "a", "b"])
    >>> Problem(np.zeros((3, 2)), y, np.arange(3), "classification").classes
    array(['a', 'b'], dtype='<U1')
    """

    X: Any
    y: np.ndarray
    groups: np.ndarray
    task: str
    people: np.ndarray | None = None

    @property
    def classes(self) -> np.ndarray:
        """All labels, sorted; empty in a regression."""
        return np.unique(self.y) if self.task == "classification" else self.y[:0]

    def rows(self, rows: np.ndarray) -> Any:
        """Return some scans."""
        return _safe_indexing(self.X, rows)

    def fingerprint(self) -> str:
        """Return a name for scans, their table, targets and participants.

        Files count by what is in them, so that a store serves a copy of the cohort too.
        """
        cohort = check_cohort(self.X, caller="compare")
        tables = [
            None if table is None else [joblib.hash(_plain(table)), list(table)]
            for table in (cohort.covariates, cohort.regions)
        ]
        return hash_of(
            [
                cohort.content_hash(),
                tables,
                self.y.tolist(),
                self.groups.tolist(),
                self.task,
            ]
        )


def make_problem(
    X: Any,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    task: str = "auto",
    cv: Any = 5,
    n_repeats: int = 1,
    seed: int = 0,
    external: tuple[Any, ArrayLike] | None = None,
    group_column: str = "participant_id",
) -> tuple[Problem, list[Split]]:
    """Return scans, targets and participants, checked, and the splits of them.

    Parameters
    ----------
    X, y, groups, task, cv, n_repeats, seed, external, group_column
        See :func:`~bsym_sklearn.analysis.comparison.compare`.

    Returns
    -------
    problem : Problem
        With the external scans last.
    splits : list of Split
        With no participant on both sides.

    Raises
    ------
    BrainDataError
        If a target or a group is missing.
    ValueError
        If a participant is on both sides.

    Examples
    --------
    >>> X, y = np.zeros((6, 2)), [0, 1, 0, 1, 0, 1]
    >>> problem, splits = make_problem(X, y, cv=2)
    >>> problem.task, [split.name for split in splits]
    ('classification', ['fold 1', 'fold 2'])
    """
    task = task_of(y, task)
    target, members = _as_target(y, task), _members(X, y, groups, group_column)
    if external is not None:
        n = len(target)
        other = _members(external[0], external[1], None, group_column, prefix="new ")
        _check_external(X, external[0], group_column)
        X = _joined(X, external[0])
        target = np.concatenate([target, _as_target(external[1], task)])
        members = np.concatenate([members, other])
        rows = np.arange(len(target))
        splits = [Split(rows[:n], rows[n:], "external")]
    else:
        splits = as_splits(
            cv, target, members, task=task, n_repeats=n_repeats, seed=seed
        )
    people = None
    if isinstance(X, pd.DataFrame):
        people = X[group_column].to_numpy() if group_column in X else None
    elif groups is not None and external is None:
        people = members
    for split in splits:
        check_disjoint(members, split)
        if people is not None:
            check_disjoint(_people(people), split)
    if groups is not None and isinstance(X, pd.DataFrame) and group_column not in X:
        X = X.assign(**{group_column: members})
    return Problem(X, target, members, task, people), splits


def _check_external(X: Any, other: Any, column: str) -> None:
    """Raise if a participant is in both cohorts, whatever `groups` are."""
    if not all(isinstance(x, pd.DataFrame) and column in x for x in (X, other)):
        return
    people, tested = ({*_people(x[column])} for x in (X, other))
    shared = people & tested
    if shared:
        raise ValueError(
            f"compare needs other participants in the external cohort. Got "
            f"{len(shared)} that are in both, such as {min(shared)!r}. Leave them out "
            "of one."
        )


def _people(names: ArrayLike) -> np.ndarray:
    """Return who each scan is of, itself where no name is given."""
    named = zip(np.asarray(names), pd.isna(np.asarray(names)), strict=True)
    people = [f"row {i}" if no else person(x) for i, (x, no) in enumerate(named)]
    return np.array(people)


def _as_target(y: ArrayLike, task: str) -> np.ndarray:
    """Return one value per scan, of a type that JSON gives back."""
    values = np.asarray(y)
    missing = pd.isna(values)
    if values.ndim != 1 or missing.any():
        first = int(missing.argmax()) if values.ndim == 1 else values.shape
        raise BrainDataError(
            f"compare needs one target per scan. Got none, first in scan {first}. "
            "Leave the scan out."
        )
    if task == "regression":
        return values.astype(float)
    return values.astype(str) if values.dtype == object else values


def _members(
    X: Any,
    y: ArrayLike,
    groups: ArrayLike | None,
    group_column: str,
    prefix: str = "",
) -> np.ndarray:
    """Return the participant of each scan, itself if nothing is known."""
    check_consistent_length(X, y)
    if groups is None and isinstance(X, pd.DataFrame) and group_column in X:
        groups = X[group_column]
    if groups is None:
        return np.array([f"{prefix}scan {i}" for i in range(len(np.asarray(y)))])
    check_consistent_length(y, groups)
    return names_of(groups, "group")


def _joined(X: Any, other: Any) -> Any:
    """Return the scans of two cohorts, one after the other."""
    if isinstance(X, pd.DataFrame) and isinstance(other, pd.DataFrame):
        return pd.concat([X, other], ignore_index=True)
    if isinstance(X, np.ndarray) and isinstance(other, np.ndarray):
        return np.concatenate([X, other])
    return [*X, *other]


def _plain(table: pd.DataFrame) -> list[list[Any]]:
    """Return the cells of a table by column: 1, True and "1" are not the same."""
    return [column.to_numpy().tolist() for _, column in table.items()]
