"""From cells to tables, tests and sentences."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.analysis.results import score_matrix, summarize
from bsym_sklearn.analysis.scores import classification_scores, regression_scores
from bsym_sklearn.analysis.statistics import (
    bayesian_t_test,
    compare_to_reference,
    corrected_t_test,
)
from bsym_sklearn.analysis.tables import conclusions, format_table

# Rows of a comparison: name, label, family, mean AUROC per split, seeds
SPLITS = [0.70, 0.74, 0.66, 0.72, 0.68]
CELL = {"level": "A", "seconds": 2.0, "seconds_predict": 0.1, "peak_memory_mb": 300.0}
CELL |= {"n_parameters": 1234, "degenerate": False, "test_fraction": 0.2, "repeat": 0}


def cells_of(
    model: str, label: str, family: str, auroc: list[float], seeds: int = 1
) -> list[dict]:
    rows = []
    for split, value in enumerate(auroc):
        for seed in range(seeds):
            offset = 0.01 * (seed - (seeds - 1) / 2)  # of mean 0 over the seeds
            scores = {"auroc": value + offset, "accuracy": value, "log_loss": 1 - value}
            scores |= {"balanced_accuracy": value, "f1": value, "brier": 0.2}
            where = {"split": f"fold {split + 1}", "seed": seed, "y_true": np.eye(2)[0]}
            names = {"model": model, "label": label, "family": family}
            rows.append({**names, **where, **scores, **CELL})
    return rows


@pytest.fixture
def results() -> pd.DataFrame:
    plus = [x + d for x, d in zip(SPLITS, [0.09, 0.1, 0.11, 0.1, 0.1], strict=True)]
    same = [x + d for x, d in zip(SPLITS, [0.01, -0.01, 0.02, -0.02, 0], strict=True)]
    lower = [x - d for x, d in zip(SPLITS, [0.09, 0.1, 0.11, 0.1, 0.1], strict=True)]
    chance = cells_of("dummy", "chance", "floor", [0.5] * 5)
    rows = [row | {"degenerate": True} for row in chance]
    rows += cells_of("tangent", "tangent + linear", "classical", SPLITS)
    rows += cells_of("sc", "SC + linear", "classical", lower)
    rows += cells_of("x-random", "X random", "ours", same, seeds=3)
    rows += cells_of("x-frozen", "X pretrained", "ours", plus, seeds=3)
    return pd.DataFrame(rows)


def external(seed: int = 0, shift: float = 1.5, n: int = 80) -> pd.DataFrame:
    """Return one split with predictions of a good and of a useless model."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    rows = []
    for label, gain in (("good", shift), ("useless", 0.0)):
        for s in (0, 1):
            p = 1 / (1 + np.exp(-rng.normal(gain * (2 * y - 1))))
            proba = np.column_stack([1 - p, p])
            predicted = (p > 0.5).astype(int)
            scores = classification_scores(y, predicted, proba, [0, 1])
            said = {"y_true": y, "y_pred": predicted, "y_proba": proba}
            names = {"model": label, "label": label, "family": "other", "seed": s}
            more = {"split": "external", "groups": y, "classes": np.array([0, 1])}
            more["groups"] = np.arange(n) // 2
            rows.append({**names, **said, **scores, **more, **CELL})
    return pd.DataFrame(rows)


def test_seeds_are_averaged_within_a_split(results) -> None:
    matrix = score_matrix(results, "auroc")
    assert matrix.shape == (5, 5)
    assert list(matrix) == list(results["label"].unique())
    np.testing.assert_allclose(matrix["tangent + linear"], SPLITS)
    expected = np.add(SPLITS, [0.01, -0.01, 0.02, -0.02, 0])
    np.testing.assert_allclose(matrix["X random"], expected)


def test_what_is_not_comparable_is_refused(results) -> None:
    with pytest.raises(ValueError, match=r"'X random': 4.* Compare them together"):
        score_matrix(
            results[(results["label"] != "X random") | (results["split"] != "fold 2")],
            "auroc",
        )
    other = results[results["label"] == "X random"].assign(level="C")
    with pytest.raises(ValueError, match="'X random': 2"):
        score_matrix(pd.concat([results, other]), "auroc")
    with pytest.raises(ValueError, match="Got 'r2'"):
        summarize(results, metric="r2")
    with pytest.raises(ValueError, match="Got 'nobody'"):
        summarize(results, reference="nobody")


def test_a_summary_has_the_statistics_of_the_corrected_tests(results) -> None:
    table = summarize(results, reference="tangent")
    assert table.attrs["metric"] == "auroc"
    assert table.attrs["reference"] == "tangent + linear"
    matrix = score_matrix(results, "auroc")
    expected = compare_to_reference(matrix, "tangent + linear", test_fraction=0.2)
    others = expected.index
    for name in ("difference", "p_value", "p_holm", "worse", "equivalent", "better"):
        np.testing.assert_allclose(table.loc[others, name], expected[name])
    np.testing.assert_allclose(table.loc[others, "difference_low"], expected["low"])
    np.testing.assert_allclose(table["auroc"], matrix.mean())
    np.testing.assert_allclose(table["auroc_sd"], matrix.std())
    interval = corrected_t_test(SPLITS, 0.0, test_fraction=0.2)
    tangent = table.loc["tangent + linear"]
    ends = tangent[["auroc_low", "auroc_high"]].tolist()
    np.testing.assert_allclose(ends, [interval.low, interval.high])
    assert np.isnan(tangent["difference"])
    assert table["seeds"].tolist() == [1, 1, 1, 3, 3]
    assert table["degenerate"].tolist() == [5, 0, 0, 0, 0]
    assert table["parameters"].eq(1234).all()


def test_less_is_better_for_losses(results) -> None:
    table = summarize(results, metric="log_loss", reference="tangent")
    assert table.loc["X pretrained", "log_loss"] < table.loc["chance", "log_loss"]
    assert table.loc["X pretrained", "difference"] == pytest.approx(0.1)
    assert table.loc["chance", "difference"] == pytest.approx(-0.2)
    matrix = -score_matrix(results, "log_loss")
    pair = matrix["chance"], matrix["tangent + linear"]
    posterior = bayesian_t_test(*pair, test_fraction=0.2)
    assert table.loc["chance", "worse"] == pytest.approx(posterior.worse)


def test_splits_without_a_score_are_left_out(results) -> None:
    results.loc[results["split"] == "fold 5", "auroc"] = np.nan  # one class there
    table = summarize(results, reference="tangent")
    assert table.loc["tangent + linear", "auroc"] == pytest.approx(np.mean(SPLITS[:4]))
    difference = table.loc["X pretrained", "difference"]
    assert difference == pytest.approx(np.mean([0.09, 0.1, 0.11, 0.1]))
    assert table["auroc_low"].notna().all()


def test_one_split_is_resampled_by_participant() -> None:
    results = external()
    table = summarize(results, reference="useless", n_resamples=300)
    good, useless = table.loc["good"], table.loc["useless"]
    mean = results[results["label"] == "good"]["auroc"].mean()
    assert good["auroc"] == pytest.approx(mean)
    assert good["auroc_low"] < mean < good["auroc_high"]
    assert good["difference"] == pytest.approx(mean - useless["auroc"])
    assert good["difference_low"] > 0
    assert good["p_holm"] < 0.05
    assert np.isnan(useless["p_holm"])
    loss = summarize(results, metric="log_loss", reference="useless", n_resamples=300)
    low, mean, high = loss.loc[
        "good", ["difference_low", "difference", "difference_high"]
    ]
    assert 0 < low < mean < high  # better, though the loss is less
    accuracy = summarize(results, metric="accuracy", n_resamples=50)
    assert accuracy.loc["good", "accuracy_low"] < accuracy.loc["good", "accuracy"]


def test_values_on_one_split_are_resampled() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    rows = []
    for label, noise in (("near", 0.2), ("far", 3.0)):
        predicted = y + noise * rng.normal(size=60)
        names = {"model": label, "label": label, "family": "other", "seed": 0}
        said = {"y_true": y, "y_pred": predicted, "y_proba": None, "classes": None}
        more = {"split": "external", "groups": np.arange(60)}
        rows.append(
            {**names, **said, **more, **regression_scores(y, predicted), **CELL}
        )
    table = summarize(pd.DataFrame(rows), reference="far", n_resamples=200)
    assert table.attrs["metric"] == "r2"
    assert table.loc["near", "difference_low"] > 0


def test_tables_come_in_four_styles(results) -> None:
    summary = summarize(results, reference="tangent")
    text = format_table(summary)
    assert text.splitlines()[0].split()[0] == "AUROC"
    assert "0.700 ± 0.032" in text
    assert "0/15" in text
    assert "5/5" in text
    markdown = format_table(summary, "markdown").splitlines()
    assert len(markdown) == 2 + 5
    assert len({line.count("|") for line in markdown}) == 1
    assert markdown[3].startswith("| tangent + linear | 0.700 ± 0.032 | [0.6")
    latex = format_table(summary.rename(index={"chance": "5 % & more_"}), "latex")
    assert r"5 \% \& more\_ & 0.500 $\pm$ 0.000" in latex
    assert r"95 \% interval" in latex
    columns = {
        line.count(" & ") for line in latex.splitlines() if line.endswith("\\\\")
    }
    assert len(columns) == 1
    read = pd.read_csv(io.StringIO(format_table(summary, "csv")), index_col="label")
    np.testing.assert_allclose(read["p_holm"], summary["p_holm"])
    with pytest.raises(ValueError, match="`style` must be one of"):
        format_table(summary, "html")


def test_sentences_say_who_wins_and_what_pretraining_did(results) -> None:
    said = conclusions(results)
    assert said[0] == "Best AUROC of 5 models over 5 splits: X pretrained, 0.800."
    # against the best classical model, with the floor left out
    assert said[1] == "Significantly above tangent + linear: X pretrained."
    assert said[2].startswith("SC + linear is below tangent + linear (AUROC 0.600")
    assert said[3].startswith(
        "X random cannot be told from tangent + linear (AUROC 0.7"
    )
    assert "practically equal with probability" in said[3]
    assert said[4].startswith("X pretrained is above tangent + linear")
    assert said[5].startswith("Pretraining: X pretrained is above X random")
    assert said[5].endswith("better in 5 and worse in 0 of 5 splits).")
    assert len(said) == 6


def test_no_win_without_significance(results) -> None:
    said = conclusions(results[results["model"] != "x-frozen"])
    assert said[1] == "No model is significantly above tangent + linear."
    against = conclusions(results, reference="x-frozen")
    assert against[1] == "No model is significantly above X pretrained."
    assert "X random is below X pretrained" in against[4]


def test_degenerate_models_and_seen_scans_are_told(results) -> None:
    results.loc[results["model"] == "sc", "degenerate"] = [True, False] * 2 + [True]
    said = conclusions(results.assign(level="C"))
    assert any(line.startswith("SC + linear is degenerate in 3 of 5") for line in said)
    assert not any(line.startswith("chance is degenerate") for line in said)
    assert said[-1].startswith("Level C: ")


def test_a_model_without_probabilities_spoils_no_table_of_one_split() -> None:
    results = external()
    without = results[results["label"] == "useless"].assign(label="svc", model="svc")
    without["y_proba"] = None
    both = pd.concat([results, without], ignore_index=True)
    summary = summarize(both, reference="useless", n_resamples=50)
    assert np.isnan(summary.loc["svc", ["auroc_low", "p_value"]].astype(float)).all()
    assert summary.loc["good", "p_value"] < 0.05
    said = conclusions(both, reference="useless", n_resamples=50)
    assert any("svc" in sentence for sentence in said)


def test_few_positives_on_one_split_are_summed_up() -> None:
    results = external(n=10)
    y = np.eye(1, 10, 3)[0].astype(int)
    results["y_true"] = [y] * len(results)
    assert "Best AUROC" in conclusions(results, n_resamples=200)[0]
