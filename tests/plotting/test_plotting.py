from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib.figure import Figure

from bsym_sklearn.plotting import (
    plot_attention,
    plot_comparison,
    plot_reconstruction,
    plot_training,
)

COLUMN_WIDTH = 3.5  # inches


@pytest.fixture
def ax():
    return Figure(figsize=(COLUMN_WIDTH, 2.5), layout="constrained").subplots()


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"accuracy": [0.1, 0.95, 0.9], "accuracy_sd": [np.nan, 0.02, 0.05]},
        index=["chance", "correlation + linear", "a model with a long name, frozen"],
    )


def test_reconstruction_hides_what_the_model_did_not_see(
    ax, rng, fits_its_figure
) -> None:
    scan = rng.normal(size=(20, 5))
    hidden = np.array([False, True, False, False, True])
    assert plot_reconstruction(scan, scan / 2, hidden, ax=ax, t_r=0.72) is ax
    recorded, seen, decoded = (image.get_array() for image in ax.images)
    np.testing.assert_array_equal(recorded[:2], scan[:, hidden].T)  # hidden on top
    np.testing.assert_array_equal(decoded, recorded / 2)
    assert seen.mask[:2].all()
    assert not seen.mask[2:].any()
    assert ax.get_xlabel() == "time (s)"
    assert [label.get_text() for label in ax.get_xticklabels()][1] == "14.4"
    assert fits_its_figure(ax)


def test_reconstruction_takes_hidden_points(ax, rng) -> None:
    scan = rng.normal(size=(20, 5))
    plot_reconstruction(scan, scan, rng.random(scan.shape) < 0.3, ax=ax)
    assert 0 < ax.images[1].get_array().mask.mean() < 1
    assert ax.get_xlabel() == "time point"


def test_reconstruction_refuses_shapes_that_do_not_fit(rng) -> None:
    scan = rng.normal(size=(20, 5))
    with pytest.raises(ValueError, match=r"Got \(20, 5\), \(20, 5\) and \(20,\)"):
        plot_reconstruction(scan, scan, np.zeros(20, bool))


def test_attention_is_sorted_by_network(ax, rng, fits_its_figure) -> None:
    matrix = rng.dirichlet(np.ones(4), size=4)
    assert plot_attention(matrix, ax=ax, networks=["b", "a", "b", "a"]) is ax
    order = [1, 3, 0, 2]
    np.testing.assert_array_equal(
        ax.images[0].get_array(), matrix[np.ix_(order, order)]
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
    assert fits_its_figure(ax)


def test_attention_with_signs_has_colours_around_zero(ax, rng) -> None:
    plot_attention(rng.normal(size=(6, 6)), ax=ax, labels=list("abcdef"))
    low, high = ax.images[0].get_clim()
    assert low == -high
    assert [t.get_text() for t in ax.get_yticklabels()] == list("abcdef")


def test_attention_refuses_names_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 4\) and 3 names"):
        plot_attention(np.eye(4), labels=list("abc"))
    with pytest.raises(ValueError, match="square matrix"):
        plot_attention(np.ones((3, 4)))


def test_training_draws_validation_where_there_is_one(ax, fits_its_figure) -> None:
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0]})
    assert plot_training(history, ax=ax) is ax
    assert len(ax.lines) == 1
    plot_training(history.assign(valid_loss=[3.0, 2.5, 2.6]), ax=ax)
    assert len(ax.lines) == 3
    assert ax.get_xlabel() == "epoch"
    assert fits_its_figure(ax)


def test_comparison_has_a_dot_and_a_spread_per_model(
    ax, table, fits_its_figure
) -> None:
    assert plot_comparison(table, ax=ax, reference="correlation + linear") is ax
    reference, dots = ax.lines[:2]
    assert reference.get_xdata()[0] == 0.95
    np.testing.assert_array_equal(dots.get_xdata(), table["accuracy"])
    (spread,) = ax.collections
    widths = [np.ptp(segment[:, 0]) for segment in spread.get_segments()]
    np.testing.assert_allclose(widths, [0.0, 0.04, 0.1])
    assert ax.get_xlabel() == "accuracy (mean ± SD)"
    assert ax.yaxis_inverted()
    assert fits_its_figure(ax)


def test_comparison_refuses_unknown_columns_and_rows(table) -> None:
    with pytest.raises(ValueError, match="needs a column 'auroc'"):
        plot_comparison(table, metric="auroc")
    with pytest.raises(ValueError, match="a row 'nobody'"):
        plot_comparison(table, reference="nobody")


def test_pictures_name_what_to_install(table, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "bsym_sklearn\[plot\]"'):
        plot_comparison(table)


def test_a_new_figure_is_one_column_wide(table) -> None:
    assert plot_comparison(table).figure.get_figwidth() == COLUMN_WIDTH
