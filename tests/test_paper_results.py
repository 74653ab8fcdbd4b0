"""The numbers that papers print: the file, and the table beside our own."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)


@pytest.fixture
def paper(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("_paper")


@pytest.fixture
def summary() -> pd.DataFrame:
    table = pd.DataFrame(
        {"auroc": [0.5, 0.9], "accuracy": [0.55, 0.8], "parameters": [0, 1000]},
        index=["dummy", "tangent + linear"],
    )
    table.attrs = {"metric": "auroc", "reference": "tangent + linear"}
    return table


def test_every_number_has_its_source_and_occurs_once(paper) -> None:
    numbers = paper.paper_results()
    key = ["task", "cohort", "modality", "model", "protocol", "metric", "source"]
    assert list(numbers.columns) == [*key[:6], "value", "source", "evidence", "note"]
    assert not numbers.duplicated(key).any()
    assert not numbers.drop(columns="note").eq("").any(axis=None)
    assert set(numbers["evidence"]) == {"A", "B", "C"}
    assert set(numbers["modality"]) == {"fmri", "sc", "fmri+sc", "t1+fmri"}


def test_numbers_are_fractions_where_they_can_be(paper) -> None:
    numbers = paper.paper_results()
    free = ["parameters", "mae", "mse_as_printed"]
    value = numbers["value"][~numbers["metric"].isin(free)]
    assert value.between(-1, 1).all()
    shares = ["accuracy", "balanced_accuracy", "auroc", "f1_as_printed"]
    assert numbers["value"][numbers["metric"].isin(shares)].between(0.4, 1).all()


def test_the_headline_is_that_of_the_paper(paper) -> None:
    rows = paper.paper_rows("sex", cohort="HCP-Aging", modality="fmri+sc")
    assert rows.index.tolist() == ["BrainSymphony", "BrainSymphony"]
    tuned = rows[rows["protocol"] == "fine-tuned"].iloc[0]
    assert (tuned["accuracy"], tuned["f1_as_printed"]) == (0.9404, 0.9330)
    assert tuned["parameters"] == 5_600_000
    assert (tuned["source"], tuned["evidence"]) == (
        "arXiv 2506.18314, Fig. 2k and 2l",
        "A",
    )
    age = paper.paper_rows("age", cohort="HCP-Aging", modality="fmri+sc")
    assert age["mse_as_printed"].tolist() == [0.363, 0.391]
    assert age["rho_as_printed"].tolist() == [0.8412, 0.7912]


def test_rivals_have_a_row_per_source(paper) -> None:
    rows = paper.paper_rows("sex", cohort="HCP-Aging").loc["Brain-JEPA"]
    accuracy = rows.set_index("source")["accuracy"]
    assert accuracy["arXiv 2506.18314, Fig. 2k"] == 0.6742
    assert accuracy["Brain-JEPA paper (NeurIPS 2024)"] == 0.8152
    assert accuracy["MnemoDyn paper (ICLR 2026)"] == 0.7917
    assert np.isnan(accuracy["BrainMoE paper (NeurIPS 2025)"])


def test_table_has_ours_above_theirs(paper, summary) -> None:
    table = paper.beside(summary, "sex", measured_on="abide_dev", cohort="HCP-Aging")
    ours, theirs = table.iloc[:2], table.iloc[2:]
    assert ours.index.tolist() == summary.index.tolist()
    assert (ours["source"] == "measured here").all()
    assert (ours["cohort"] == "abide_dev").all()
    np.testing.assert_array_equal(ours["accuracy"], summary["accuracy"])
    assert ours["f1_as_printed"].isna().all()
    assert ours["parameters"].tolist() == [0, 1000]
    printed = paper.paper_rows("sex", cohort="HCP-Aging")
    assert theirs.index.tolist() == printed.index.tolist()
    np.testing.assert_array_equal(theirs["accuracy"], printed["accuracy"])
    assert "auroc" in table


def test_table_adds_the_headline_that_no_paper_prints(paper, summary) -> None:
    table = paper.beside(summary, "age", measured_on="here", modality="sc")
    assert list(table.columns) == [
        *["cohort", "modality", "protocol", "auroc"],
        *["mse_as_printed", "rho_as_printed", "parameters"],
        *["source", "evidence", "note"],
    ]
    assert table["auroc"].isna().tolist() == [False, False, True, True]


def test_unknown_rows_are_refused_with_what_there_is(paper) -> None:
    with pytest.raises(ValueError, match=r"a printed task. Got 'iq'.*'sex', 'age'"):
        paper.paper_rows("iq")
    with pytest.raises(ValueError, match=r"a printed modality. Got 'sc'"):
        paper.paper_rows("NC/MCI", modality="sc")
