"""Which scans a model may learn from, and which it is judged on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedGroupKFold
from sklearn.utils import check_consistent_length, check_scalar

from bsym_sklearn.estimators.strength import divide
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.layers import check_choice

N_BINS = 5  # of a continuous target, for folds with equal distributions
MAX_NUMBERED_CLASSES = 10  # whole numbers of more values than this are regressed
TASKS = ("auto", "classification", "regression")


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to learn from and rows to be judged on.

    It unpacks into ``train, test``, as the splits of scikit-learn do.

    Parameters
    ----------
    train, test : ndarray of int
        Row numbers.
    name : str
        What tables call it.
    repeat : int, default=0
        Which repetition of the cross-validation it belongs to.

    Examples
    --------
    >>> train, test = Split(np.array([0, 1]), np.array([2]), "fold 1")
    >>> test
    array([2])
    """

    train: np.ndarray
    test: np.ndarray
    name: str
    repeat: int = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.train, self.test))

    @property
    def test_fraction(self) -> float:
        """Share of the rows that are tested, in (0, 1)."""
        return len(self.test) / (len(self.train) + len(self.test))


def task_of(y: ArrayLike, task: str = "auto") -> str:
    """Say whether a target is to be classified or regressed.

    Parameters
    ----------
    y : array-like of shape (n_scans,)
        Target.
    task : {"auto", "classification", "regression"}, default="auto"
        Returned as it is, unless "auto": numbers with a fraction, or with more than
        ten values, are regressed, and all else is classified.

    Returns
    -------
    {"classification", "regression"}

    Raises
    ------
    ValueError
        If `task` is another word.

    Examples
    --------
    >>> task_of(["rest", "task", "rest"]), task_of([20.5, 31.0]), task_of([0, 1, 1])
    ('classification', 'regression', 'classification')
    """
    check_choice(task, TASKS, "task")
    if task != "auto":
        return task
    values = pd.Series(np.asarray(y)).infer_objects()
    if not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
        return "classification"
    whole = bool((values % 1 == 0).all())
    few = values.nunique() <= MAX_NUMBERED_CLASSES
    return "classification" if whole and few else "regression"


def grouped_folds(
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    task: str = "auto",
    n_folds: int = 5,
    n_repeats: int = 1,
    stratify: bool | ArrayLike = True,
    seed: int = 0,
) -> list[Split]:
    """Return folds that keep groups whole and the target in proportion.

    Parameters
    ----------
    y : array-like of shape (n_scans,)
        Labels, or values; those are divided into fifths to be kept in proportion.
    groups : array-like of shape (n_scans,) or None, default=None
        Participants: no group is on both sides. None takes each scan as its own.
    task : {"auto", "classification", "regression"}, default="auto"
        See :func:`task_of`.
    n_folds : int, default=5
        Folds per repetition, at least 2.
    n_repeats : int, default=1
        Repetitions, each shuffled anew.
    stratify : bool or array-like of shape (n_scans,), default=True
        Whether to keep the target in proportion, or labels to keep in proportion in
        its place, e.g. of target and site together.
    seed : int, default=0
        Draws the folds.

    Returns
    -------
    list of Split of length n_repeats * n_folds

    Raises
    ------
    BrainDataError
        If a scan has no group.
    ValueError
        If there are fewer groups than folds, or a class in fewer than two groups.

    Examples
    --------
    >>> folds = grouped_folds([0, 0, 1, 1] * 3, [1, 2, 3, 4] * 3, n_folds=2)
    >>> [(split.name, len(split.test)) for split in folds]
    [('fold 1', 6), ('fold 2', 6)]
    """
    check_scalar(n_folds, "n_folds", int, min_val=2)
    check_scalar(n_repeats, "n_repeats", int, min_val=1)
    y, members = np.asarray(y), _members(y, groups)
    is_continuous = task_of(y, task) == "regression"
    n_groups = len(np.unique(members))
    if n_groups < n_folds:
        raise ValueError(
            f"grouped_folds needs at least as many groups as folds. Got {n_groups} "
            f"groups and n_folds={n_folds}. Make fewer folds."
        )
    if not is_continuous:
        check_classes(y, members)
    strata = _strata(y, stratify, is_continuous, n_folds)
    splits = []
    for repeat in range(n_repeats):
        folds = _splitter(strata, members, n_folds, seed + repeat)
        for fold, (train, test) in enumerate(folds):
            prefix = f"repeat {repeat + 1}, " if n_repeats > 1 else ""
            splits.append(Split(train, test, f"{prefix}fold {fold + 1}", repeat))
    return splits


def leave_one_group_out(
    left_out: ArrayLike, participants: ArrayLike | None = None
) -> list[Split]:
    """Return one split per site, tested on it and trained on the others.

    Parameters
    ----------
    left_out : array-like of shape (n_scans,)
        Sites, scanners, cohorts: the name of each split.
    participants : array-like of shape (n_scans,) or None, default=None
        Checked not to be in two sites.

    Returns
    -------
    list of Split of length n_sites

    Raises
    ------
    BrainDataError
        If a scan has no site, or no participant.
    ValueError
        If there is one site only, or a participant is in two.

    Examples
    --------
    >>> splits = leave_one_group_out(["rome", "rome", "oslo", "lima"])
    >>> [(split.name, split.test.tolist()) for split in splits]
    [('lima', [3]), ('oslo', [2]), ('rome', [0, 1])]
    """
    sites = names_of(left_out, "site to leave out")
    if len(np.unique(sites)) < 2:
        raise ValueError(
            "leave_one_group_out needs two groups or more. Got "
            f"{np.unique(sites).tolist()}. Use grouped_folds within one."
        )
    splits = [
        Split(train, test, str(sites[test[0]]))
        for train, test in LeaveOneGroupOut().split(sites, groups=sites)
    ]
    if participants is not None:
        members = names_of(participants, "participant")
        for split in splits:
            check_disjoint(members, split)
    return splits


def names_of(values: ArrayLike, what: str) -> np.ndarray:
    """Return what divides the scans, as text.

    Parameters
    ----------
    values : array-like of shape (n_scans,)
        Participants, sites.
    what : str
        What they are, for the message.

    Returns
    -------
    ndarray of str of shape (n_scans,)

    Raises
    ------
    BrainDataError
        If a scan has none: all that lack it would be taken for one.

    Examples
    --------
    >>> names_of(["rome", None], "site")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.BrainDataError: A split needs the site of every scan. ...
    """
    named = np.asarray(values)
    missing = pd.isna(named)
    if missing.any():
        raise BrainDataError(
            f"A split needs the {what} of every scan. Got none for {missing.sum()} of "
            f"{len(named)}, first scan {missing.argmax()}. Name it, or leave those out."
        )
    return named.astype(str)


def check_disjoint(groups: ArrayLike, split: Split) -> None:
    """Raise if a group, or a row, is on both sides of a split.

    Parameters
    ----------
    groups : array-like of shape (n_scans,)
        Participants.
    split : Split
        Rows of training and test.

    Raises
    ------
    ValueError
        If they overlap, or a side is empty.

    Examples
    --------
    >>> split = Split(np.array([0, 1]), np.array([2]), "fold 1")
    >>> check_disjoint(["ann", "bob", "bob"], split)
    Traceback (most recent call last):
    ValueError: A split needs different groups in training and test. Got 1 in both, ...
    """
    members = np.asarray(groups)
    train, test = split
    if not len(train) or not len(test):
        raise ValueError(
            f"A split needs rows to train and to test on. Got {len(train)} and "
            f"{len(test)} in {split.name!r}. Leave the split out."
        )
    shared = sorted(set(members[train].tolist()) & set(members[test].tolist()))
    if shared:
        raise ValueError(
            "A split needs different groups in training and test. Got "
            f"{len(shared)} in both, first {shared[0]!r} in {split.name!r}. Split by "
            "group, e.g. with grouped_folds."
        )


def check_classes(y: np.ndarray, groups: np.ndarray) -> None:
    """Raise if a class is in one group only: it could not be learned and tested.

    Parameters
    ----------
    y : ndarray of shape (n_scans,)
        Labels.
    groups : ndarray of shape (n_scans,)
        Participants.

    Raises
    ------
    ValueError
        Naming the class.

    Examples
    --------
    >>> check_classes(np.array(["a", "a", "b"]), np.array([1, 2, 2]))
    Traceback (most recent call last):
    ValueError: A comparison needs every class in 2 groups or more. Got 'b' in 1. ...
    """
    n_groups = pd.Series(groups).groupby(y).nunique()
    for label, n in n_groups.items():
        if n < 2:
            raise ValueError(
                f"A comparison needs every class in 2 groups or more. Got {label!r} "
                f"in {n}. Leave its scans out."
            )


def inner_folds(
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    task: str = "auto",
    n_folds: int = 3,
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Divide training rows again, groups undivided, to choose settings within.

    Parameters
    ----------
    y : array-like of shape (n_train,)
        Target of the training rows.
    groups : array-like of shape (n_train,) or None, default=None
        Participants.
    task : {"auto", "classification", "regression"}, default="auto"
        See :func:`task_of`.
    n_folds : int, default=3
        Folds at most; fewer if a class, or the whole, has fewer groups.

    Returns
    -------
    list of (train, test) or None
        Positions within the training rows. None if no two folds can be made.

    Examples
    --------
    >>> len(inner_folds([0, 0, 1, 1], ["a", "b", "c", "d"]))
    2
    >>> inner_folds([0, 0, 1], ["a", "b", "c"]) is None
    True
    """
    y, members = np.asarray(y), _members(y, groups)
    return divide(members, None if task_of(y, task) == "regression" else y, n_folds)


def as_splits(
    cv: Any,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    task: str = "auto",
    n_repeats: int = 1,
    seed: int = 0,
) -> list[Split]:
    """Return the splits that `cv` stands for.

    Parameters
    ----------
    cv : int, splitter of scikit-learn, or iterable of Split or (train, test)
        A number is handed to :func:`grouped_folds`.
    y, groups : ndarray of shape (n_scans,)
        Target and participants.
    task, n_repeats, seed
        See :func:`grouped_folds`; only for a number.

    Returns
    -------
    list of Split

    Raises
    ------
    TypeError
        If `cv` is nothing of the kind.
    ValueError
        If there is no split, or two of one name.

    Examples
    --------
    >>> splits = as_splits([([0, 1], [2])], np.arange(3), np.arange(3))
    >>> splits[0].name, splits[0].test
    ('split 1', array([2]))
    """
    if isinstance(cv, Integral):
        return grouped_folds(
            y, groups, task=task, n_folds=int(cv), n_repeats=n_repeats, seed=seed
        )
    if hasattr(cv, "split"):
        cv = cv.split(np.zeros((len(y), 1)), y, groups)
    if not isinstance(cv, Iterable):
        raise TypeError(
            "`cv` needs to be a number of folds, a splitter of scikit-learn or a list "
            f"of (train, test). Got {cv!r}."
        )
    given = list(cv)
    splits = [
        part if isinstance(part, Split) else _numbered(part, i)
        for i, part in enumerate(given)
    ]
    if not any(isinstance(part, Split) for part in given):
        splits = _in_repeats(splits)
    names = [split.name for split in splits]
    if not splits or len(set(names)) < len(names):
        raise ValueError(
            f"`cv` needs splits of different names. Got {names}. Rename them."
        )
    return splits


def _numbered(rows: Any, i: int) -> Split:
    """Return a pair of row numbers as a split."""
    sides = (np.asarray(side) for side in rows)
    train, test = (
        np.flatnonzero(x) if x.dtype == bool else x.astype(int) for x in sides
    )
    return Split(train, test, f"split {i + 1}")


def _in_repeats(splits: list[Split]) -> list[Split]:
    """Count the repetitions: a new one begins with a row that is tested again."""
    numbered, tested, repeat = [], set[int](), 0
    for split in splits:
        rows = set(split.test.tolist())
        if rows & tested:
            tested, repeat = set(), repeat + 1
        tested |= rows
        numbered.append(replace(split, repeat=repeat))
    return numbered


def _members(y: ArrayLike, groups: ArrayLike | None) -> np.ndarray:
    """Return the group of each scan, itself if there are none."""
    if groups is None:
        return np.arange(len(np.asarray(y)))
    check_consistent_length(y, groups)
    return names_of(groups, "group")


def _strata(
    y: np.ndarray, stratify: bool | ArrayLike, is_continuous: bool, n_folds: int
) -> np.ndarray | None:
    """Return the labels to keep in proportion, None for none."""
    if not isinstance(stratify, bool):
        check_consistent_length(y, stratify)
        return np.asarray(stratify).astype(str)
    if not stratify:
        return None
    if is_continuous:
        n_bins = min(N_BINS, len(y) // n_folds)
        return pd.qcut(y, n_bins, labels=False, duplicates="drop")
    return y


def _splitter(
    strata: np.ndarray | None, members: np.ndarray, n_folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return shuffled folds over groups."""
    if strata is None:
        plain = GroupKFold(n_folds, shuffle=True, random_state=seed)
        return plain.split(members, groups=members)
    stratified = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return stratified.split(members, strata, members)
