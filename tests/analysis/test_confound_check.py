"""The confound check: known answers, error rates, and who may be exchanged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict

from bsym_sklearn.analysis.confound_check import confound_check
from bsym_sklearn.exceptions import BrainDataError

COLUMNS = ["prediction_r2", "target_r2", "association", "partial_association"]
COLUMNS += ["share_kept", "p_association", "p_confounding"]


def check(y_true, y_pred, confounds, **options) -> pd.DataFrame:
    options = {"n_permutations": 199} | options
    return confound_check(y_true, y_pred, pd.DataFrame(confounds), **options)


@pytest.fixture
def age(rng) -> np.ndarray:
    return rng.normal(40.0, 10.0, size=150)


def test_a_prediction_from_the_confound_alone_is_found_out(rng, age) -> None:
    y = age + rng.normal(0, 10, size=150)
    table = check(y, 0.3 * age + rng.normal(size=150), {"age": age})
    assert list(table.columns) == COLUMNS
    row = table.loc["age"]
    assert row["prediction_r2"] > 0.85 > 0.6 > row["target_r2"]
    assert row["association"] > 0.5
    assert abs(row["partial_association"]) < 0.2
    assert row["p_association"] > 0.05
    assert row["p_confounding"] == 1 / 200


def test_a_prediction_from_the_target_alone_is_cleared(rng, age) -> None:
    y = age + rng.normal(0, 10, size=150)
    row = check(y, y + rng.normal(0, 5, size=150), {"age": age}).loc["age"]
    assert row["share_kept"] > 0.8
    assert row["p_association"] == 1 / 200
    assert row["p_confounding"] > 0.05


def test_partial_association_is_the_partial_correlation(rng, age) -> None:
    y = age + rng.normal(0, 10, size=150)
    prediction = age + y + rng.normal(0, 10, size=150)
    row = check(y, prediction, {"age": age}, n_permutations=1).loc["age"]
    r = np.corrcoef([y, prediction, age])
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(
        (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    )
    assert row["association"] == pytest.approx(r[0, 1])
    assert row["partial_association"] == pytest.approx(expected)
    assert row["share_kept"] == pytest.approx(expected / r[0, 1])


def test_variance_explained_is_cross_validated(rng) -> None:
    noise = rng.normal(size=(60, 12))
    y = rng.normal(size=60)
    within = r2_score(y, noise @ np.linalg.lstsq(noise, y, rcond=None)[0])
    table = check(y, y + rng.normal(size=60), noise, n_permutations=1)
    assert within > 0.1
    assert table.loc["all", "target_r2"] < 0


def test_sites_count_as_categories_and_all_confounds_as_one_more_row(rng, age) -> None:
    site = np.repeat(["oslo", "rome", "kiel"], 50)
    effect = {"oslo": 0.0, "rome": 3.0, "kiel": -1.0}
    y = rng.normal(size=150)
    prediction = y + [effect[name] for name in site] + 0.1 * (age - 40)
    table = check(y, prediction, {"site": site, "age": age})
    assert table.index.tolist() == ["site", "age", "all"]
    r2 = table["prediction_r2"]
    assert r2["all"] > r2["site"] > r2["age"] > 0.1
    assert (table["p_confounding"] == 1 / 200).all()
    assert table["partial_association"]["all"] == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array([False, True])])
def test_scores_labels_and_probabilities_of_two_classes_agree(rng, labels) -> None:
    codes = rng.integers(2, size=80)
    y = labels[codes]
    p = np.clip(rng.normal(codes * 0.3 + 0.3, 0.2), 0, 1)
    age = {"age": rng.normal(size=80)}
    of_scores = check(y, p, age, n_permutations=20)
    of_both = check(y, np.column_stack([1 - p, p]), age, n_permutations=20)
    pd.testing.assert_frame_equal(of_scores, of_both)
    expected = stats.pointbiserialr(codes, p).statistic
    assert of_scores["association"].iloc[0] == pytest.approx(expected)
    of_labels = check(y, labels[(p > 0.5).astype(int)], age, n_permutations=20)
    expected = stats.pearsonr(codes, p > 0.5).statistic
    assert of_labels["association"].iloc[0] == pytest.approx(expected)


def test_class_codes_are_not_values(rng) -> None:
    y = rng.integers(3, size=90)
    wrong = np.array([1, 2, 0])[y]  # never right, but a function of the class
    table = check(y, wrong, {"age": rng.normal(size=90)})
    assert table["association"].iloc[0] == pytest.approx(-0.5, abs=0.05)
    assert table["p_association"].iloc[0] == 1.0


def test_probabilities_of_several_classes_are_averaged(rng) -> None:
    y = rng.choice(["a", "b", "c"], size=90)
    one_hot = (y[:, None] == ["a", "b", "c"]) * 1.0
    p = one_hot + rng.normal(0, [0.1, 0.5, 1.0], size=(90, 3))
    each = [np.corrcoef(one_hot[:, k], p[:, k])[0, 1] for k in range(3)]
    table = check(y, p, {"age": rng.normal(size=90)}, n_permutations=1)
    assert table["association"].iloc[0] == pytest.approx(np.mean(each))


def test_a_class_that_is_never_predicted_counts_as_no_association(rng) -> None:
    y = np.repeat(["a", "b", "c"], 10)
    table = check(y, np.where(y == "c", "b", y), {"age": rng.normal(size=30)})
    in_b = np.corrcoef(y == "b", y != "a")[0, 1]
    assert table["association"].iloc[0] == pytest.approx((1.0 + in_b) / 3)


def test_a_target_that_is_the_confound_leaves_nothing(rng) -> None:
    y = np.repeat(["oslo", "rome"], 20)
    row = check(y, (y == "rome") + rng.normal(size=40), {"site": y}).loc["site"]
    assert row["target_r2"] == pytest.approx(1.0)
    assert row["partial_association"] == 0.0
    assert row["p_association"] == row["p_confounding"] == 1.0


def test_p_values_are_uniform_where_nothing_is_left(rng) -> None:
    p_values = []
    for seed in range(60):
        age = rng.normal(size=40)
        y, prediction = age + rng.normal(size=(2, 40))
        table = check(y, prediction, {"age": age}, n_permutations=99, seed=seed)
        p_values.append(table["p_association"].iloc[0])
        swapped = check(age, prediction, {"y": y}, n_permutations=99, seed=seed)
        p_values.append(swapped["p_confounding"].iloc[0])
    p_association, p_confounding = np.reshape(p_values, (60, 2)).T
    assert stats.kstest(p_association, "uniform").pvalue > 0.01
    assert stats.kstest(p_confounding, "uniform").pvalue > 0.01


def test_participants_with_one_target_are_one_row_each(rng) -> None:
    person = np.repeat(np.arange(20), 3)
    y = rng.normal(size=20)
    prediction = y[person] + rng.normal(size=60)
    motion = rng.normal(size=60)
    table = check(y[person], prediction, {"motion": motion}, groups=person)
    means = pd.DataFrame({"p": prediction, "motion": motion}).groupby(person).mean()
    alone = check(y, means["p"], means[["motion"]])
    pd.testing.assert_frame_equal(table, alone)


def test_scans_are_not_counted_as_participants(rng) -> None:
    """Repeated scans of few people do not make a chance association certain."""
    person = np.repeat(np.arange(8), 25)
    y, prediction = rng.normal(size=(2, 8))
    noise = {"age": rng.normal(size=8)[person]}
    y, prediction = y[person], prediction[person] + rng.normal(0, 0.01, size=200)
    if np.corrcoef(y, prediction)[0, 1] < 0:
        prediction = -prediction
    naive = check(y, prediction, noise).loc["age", "p_association"]
    honest = check(y, prediction, noise, groups=person).loc["age", "p_association"]
    assert naive < 0.01 < 0.04 < honest


def test_states_are_exchanged_within_participants(rng) -> None:
    """Who a scan is of predicts nothing where each person has every state."""
    person = np.repeat([f"p{i}" for i in range(10)], 4)
    offset = np.repeat(rng.normal(0, 5, size=10), 4)
    y = np.tile(["rest", "task"], 20)
    prediction = offset + (y == "task") + rng.normal(0, 0.3, size=40)
    noise = {"motion": rng.normal(size=40)}
    kept = check(y, prediction, noise, groups=person).loc["motion", "p_association"]
    mixed = check(y, prediction, noise).loc["motion", "p_association"]
    assert kept == 1 / 200
    assert mixed > 0.05


def test_same_seed_gives_the_same_table(rng, age) -> None:
    y, prediction = rng.normal(size=(2, 150))
    first, again, other = (
        check(y, prediction, {"age": age}, seed=s) for s in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_unusable_input_is_refused(rng) -> None:
    y = rng.normal(size=10)
    age = {"age": np.arange(10.0)}
    with pytest.raises(BrainDataError, match=r"needs 'age' in every row.*scan 2"):
        check(y, y, {"age": [1, 2, None, *range(7)]})
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check(y, y[:5], age)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check(y, y, age, groups=[1, 2])
    with pytest.raises(ValueError, match="values that vary in `y_pred`"):
        check(y, np.full(10, 0.5), age)
    with pytest.raises(ValueError, match="values that vary in `y_true`"):
        check(["a"] * 10, ["a", "b"] * 5, age)
    with pytest.raises(ValueError, match="finite values that vary in `y_pred`"):
        check(y, np.where(y > 0, np.nan, y), age)
    with pytest.raises(ValueError, match="Got 3 rows of 3 participants"):
        check(y[:3], y[:3], {"age": [1, 2, 3]})
    with pytest.raises(ValueError, match="Got 1 rows of 1 participants"):
        check(np.arange(10) * 0 + 1.0, y, age, groups=["p"] * 10)
    message = r"one column of scores per class.*shape \(10, 2\).*\['a', 'b', 'c'\]"
    with pytest.raises(ValueError, match=message):
        check(list("abcabcabca"), np.ones((10, 2)), age)


def test_real_predictions_of_classes_pass(rng) -> None:
    X, y = load_digits(n_class=4, return_X_y=True)
    X, y = X[:160], y[:160]
    p = cross_val_predict(
        LogisticRegression(max_iter=200), X, y, cv=3, method="predict_proba"
    )
    table = check(y, p, {"ink": X.sum(axis=1), "noise": rng.normal(size=160)})
    assert (table["share_kept"] > 0.9).all()
    assert (table["p_association"] == 1 / 200).all()
