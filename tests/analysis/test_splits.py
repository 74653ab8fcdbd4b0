"""Splits keep participants on one side, and targets in proportion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import (
    GroupKFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
)

from bsym_sklearn.analysis.splits import (
    Split,
    as_splits,
    check_disjoint,
    grouped_folds,
    inner_folds,
    leave_one_group_out,
    task_of,
)
from bsym_sklearn.exceptions import BrainDataError


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 3))
def test_folds_keep_participants_whole_and_test_each_scan_once_per_repeat(
    seed: int, n_folds: int, n_repeats: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(24), rng.integers(1, 4, 24))
    y = (groups % 2)[: len(groups)]
    folds = grouped_folds(y, groups, n_folds=n_folds, n_repeats=n_repeats, seed=seed)
    assert len(folds) == n_folds * n_repeats
    assert len({fold.name for fold in folds}) == len(folds)
    for repeat in range(n_repeats):
        tested = [fold.test for fold in folds if fold.repeat == repeat]
        assert sorted(np.concatenate(tested)) == list(range(len(y)))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert len(train) + len(test) == len(y)
        assert set(y[test]) == {0, 1}


def test_the_seed_draws_the_folds_and_each_repeat_differs() -> None:
    y = np.arange(40) % 2
    first, again = (grouped_folds(y, n_repeats=2, seed=3) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.test, two.test)
    assert not np.array_equal(first[0].test, first[5].test)
    other = grouped_folds(y, n_repeats=2, seed=4)
    assert not np.array_equal(first[0].test, other[0].test)


def test_values_are_kept_in_proportion() -> None:
    y = np.random.default_rng(0).normal(size=200)
    means = [y[test].mean() for _, test in grouped_folds(y, n_folds=5)]
    plain = [y[test].mean() for _, test in grouped_folds(y, stratify=False)]
    assert np.std(means) < np.std(plain)


def test_folds_can_be_stratified_by_something_else() -> None:
    site = np.repeat(["rome", "oslo"], [80, 20])
    y = np.tile([0, 1], 50)
    for _, test in grouped_folds(y, stratify=np.char.add(site, y.astype(str))):
        assert (site[test] == "oslo").sum() == 4


def test_whole_numbers_of_many_values_are_regressed() -> None:
    assert task_of(np.arange(30.0)) == "regression"
    assert task_of([1.5, 2.0]) == "regression"
    assert task_of(np.arange(30) % 3) == "classification"
    assert task_of(np.arange(30), "classification") == "classification"
    assert task_of([True, False]) == "classification"
    with pytest.raises(ValueError, match="`task` must be one of"):
        task_of([0, 1], "ranking")
    ages = np.arange(20.0, 50.0)  # no class is in two groups, which does not matter
    assert len(grouped_folds(ages)) == 5


def test_folds_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match="Got 'b' in 1"):
        grouped_folds(["a", "a", "b", "b"], ["x", "y", "z", "z"], n_folds=2)
    with pytest.raises(ValueError, match="Got 2 groups and n_folds=3"):
        grouped_folds([0, 1, 0, 1], ["x", "x", "y", "y"], n_folds=3)


def test_each_site_is_left_out_and_named() -> None:
    sites = np.array(["rome", "oslo", "rome", "lima"])
    splits = leave_one_group_out(sites, participants=[1, 2, 1, 3])
    assert [split.name for split in splits] == ["lima", "oslo", "rome"]
    for split in splits:
        assert set(sites[split.test]) == {split.name}
    with pytest.raises(ValueError, match="Got 1 in both, first '2' in 'lima'"):
        leave_one_group_out(sites, participants=[1, 2, 1, 2])
    with pytest.raises(ValueError, match="needs two groups or more"):
        leave_one_group_out(["rome", "rome"])


def test_overlap_and_empty_sides_are_refused() -> None:
    rows = np.arange(3)
    with pytest.raises(ValueError, match="Got 1 in both, first 'a' in 'mine'"):
        check_disjoint(["a", "b", "a"], Split(rows[:2], rows[2:], "mine"))
    with pytest.raises(ValueError, match="Got 3 and 0 in 'mine'"):
        check_disjoint(["a", "b", "a"], Split(rows, rows[:0], "mine"))


def test_inner_folds_are_as_many_as_the_rarest_class_allows() -> None:
    groups = np.arange(10)
    y = np.array([0] * 8 + [1] * 2)
    folds = inner_folds(y, groups)
    assert folds is not None
    assert len(folds) == 2
    for fit, check in folds:
        assert set(y[fit]) == set(y[check]) == {0, 1}
    assert inner_folds(y, [*range(8), 8, 8]) is None
    assert len(inner_folds(np.linspace(0, 1, 10), groups, n_folds=4) or []) == 4


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored:UserWarning")
def test_splits_may_come_from_scikit_learn_or_by_hand() -> None:
    y, groups = np.tile([0, 1], 6), np.arange(12) // 2
    made = as_splits(GroupKFold(3), y, groups)
    assert [split.name for split in made] == ["split 1", "split 2", "split 3"]
    folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    assert [split.repeat for split in as_splits(folds, y, groups)] == [0] * 3 + [1] * 3
    drawn = ShuffleSplit(3, test_size=0.6, random_state=0)
    assert [split.repeat for split in as_splits(drawn, y, groups)] == [0, 1, 2]
    own = Split(np.arange(6), np.arange(6, 12), "halves")
    assert as_splits([own], y, groups) == [own]
    assert own.test_fraction == 0.5
    with pytest.raises(TypeError, match=r"`cv` needs to be .* Got 1\.5"):
        as_splits(1.5, y, groups)
    with pytest.raises(ValueError, match="splits of different names"):
        as_splits([own, own], y, groups)


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
def test_scans_without_a_name_are_not_taken_for_one_group(nothing: object) -> None:
    names = pd.Series(["a", "b", "c", nothing, nothing, "f"], dtype=object)
    said = r"Got none for 2 of 6, first scan 3\."
    with pytest.raises(BrainDataError, match="needs the group of every scan. " + said):
        grouped_folds([0, 1] * 3, names, n_folds=2)
    with pytest.raises(BrainDataError, match="needs the site to leave out .* " + said):
        leave_one_group_out(names)
    with pytest.raises(BrainDataError, match="needs the participant of .* " + said):
        leave_one_group_out(["rome", "oslo"] * 3, names)


def test_numbers_are_numbers_in_a_column_of_objects_too() -> None:
    assert task_of(np.array([20.5, 31.0], dtype=object)) == "regression"
    assert task_of(np.array([0, 1, 1], dtype=object)) == "classification"
    assert task_of(np.array(["20.5", "31"], dtype=object)) == "classification"
