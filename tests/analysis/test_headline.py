"""A headline against shuffled targets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.analysis.headline import headline_test


def cells(truth, predicted, groups, folds: int, classes=None) -> pd.DataFrame:
    """Return the cells of one model with one seed on folds of consecutive scans."""
    rows = []
    for k, part in enumerate(np.array_split(np.arange(len(truth)), folds)):
        p = None if classes is None else np.eye(len(classes))[predicted[part]]
        row = {"model": "m", "label": "M", "split": f"fold {k}", "repeat": 0, "seed": 0}
        row |= {"rows": part, "groups": groups[part], "y_true": truth[part]}
        rows.append(row | {"y_pred": predicted[part], "y_proba": p, "classes": classes})
    return pd.DataFrame(rows)


def test_predictions_that_know_the_target_are_told_from_those_that_do_not(rng) -> None:
    truth, groups, classes = np.arange(40) % 2, np.arange(40), np.array([0, 1])
    few = {"n_permutations": 200, "random_state": 0}
    good = headline_test(cells(truth, truth, groups, 4, classes), "m", **few)
    assert good.p_value == pytest.approx(1 / 201)
    assert good.score == 1
    # Independent of the target in every fold: as many right as wrong.
    noise = np.arange(40) // 2 % 2
    bad = headline_test(cells(truth, noise, groups, 4, classes), "M", **few)
    assert bad.p_value > 0.2


def test_repeated_scans_of_a_participant_count_once() -> None:
    # Right in two participants of two: of four shuffles, two are like the truth.
    truth = np.repeat([0.0, 1.0], 20)
    groups = np.repeat(["a", "b"], 20)
    found = headline_test(cells(truth, truth, groups, 1), "M", random_state=0)
    assert found.p_value == pytest.approx(0.5, abs=0.06)


def test_states_are_exchanged_within_participants() -> None:
    # Predicts the participant, whose states differ in frequency, and no state.
    groups = np.repeat(np.arange(10), 8)
    truth = np.concatenate([np.arange(8) < (6 if p % 2 else 2) for p in range(10)])
    predicted = np.repeat(np.arange(10) % 2, 8).astype(float)
    table = cells(truth + 0.0, predicted, groups, 2)
    found = headline_test(table, "M", metric="mae", random_state=0)
    assert found.p_value == 1  # the same score whatever is exchanged


def test_less_is_better_with_a_minus_and_repeats_are_left_out() -> None:
    truth, groups = np.arange(12.0), np.arange(12)
    table = cells(truth, truth + 1, groups, 3)
    again = table.assign(repeat=1, y_pred=[np.zeros(4)] * 3)
    both = pd.concat([table, again])
    found = headline_test(both, "M", metric="mae", n_permutations=19, random_state=0)
    assert found.score == -1
    with pytest.raises(ValueError, match="'other'"):
        headline_test(table, "other")


def test_folds_without_a_score_do_not_count() -> None:
    classes, groups = np.array([0, 1]), np.arange(12)
    truth = np.array([0, 0, 0, 0, *[0, 1] * 4])  # one class in the first fold
    table = cells(truth, truth, groups, 3, classes)
    found = headline_test(table, "M", n_permutations=99, random_state=0)
    assert found.score == 1
    assert found.p_value < 0.2
    with pytest.raises(ValueError, match="Got none of 1"):
        headline_test(table[:1], "M")
    with pytest.raises(ValueError, match="without predict_proba"):
        headline_test(table.assign(y_proba=None), "M")


def test_windows_of_a_scan_are_exchanged_together() -> None:
    # Four scans of ten windows: right in all, which is 1 of 24 orders.
    truth = np.repeat(np.arange(4), 10)
    table = cells(truth, truth, np.zeros(40, int), 1, np.arange(4))
    alone = headline_test(table, "M", n_permutations=199, random_state=0)
    assert alone.p_value == pytest.approx(1 / 200)
    found = headline_test(table, "M", units=truth, n_permutations=199, random_state=0)
    assert found.p_value == pytest.approx(1 / 24, abs=0.04)
