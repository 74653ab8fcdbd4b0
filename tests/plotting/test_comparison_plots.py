"""What the pictures of a comparison draw, read back from their Axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib.colors import to_hex

from bsym_sklearn.analysis.statistics import CriticalDifference, critical_difference
from bsym_sklearn.plotting import plot_cost, plot_critical_differences, plot_forest
from bsym_sklearn.plotting.axes import BLUE, GREY, ORANGE

LONG = "BrainSymphony pretrained, frozen + linear"


@pytest.fixture
def summary() -> pd.DataFrame:
    nan = np.nan
    columns = {
        "auroc": [0.5, 0.70, 0.72, 0.80],
        "auroc_low": [0.5, 0.65, 0.66, 0.75],
        "auroc_high": [0.5, 0.75, 0.78, 0.85],
        "difference": [-0.2, nan, 0.02, 0.10],
        "difference_low": [-0.25, nan, -0.03, 0.05],
        "difference_high": [-0.15, nan, 0.07, 0.15],
        "p_value": [0.001, nan, 0.3, 0.0001],
        "p_holm": [0.002, nan, 0.3, 0.0003],
        "seconds": [0.01, 2.0, 900.0, 60.0],
        "parameters": [0, 5000, 3_000_000, 40_000],
    }
    table = pd.DataFrame(columns, index=["dummy", "tangent", LONG, "ours"])
    table.attrs = {"metric": "auroc", "reference": "tangent"}
    return table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def dots(ax) -> list:
    return [line for line in ax.lines if line.get_marker() == "o"]


def intervals(ax) -> np.ndarray:
    """Return (n, 2): where the error bars end, top row first."""
    segments = [s for c in ax.collections for s in c.get_segments()]
    return np.array([segment[:, 0] for segment in segments])


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_forest_draws_differences_with_their_intervals(
    summary, fits_its_figure
) -> None:
    ax = plot_forest(summary)
    means = [dot.get_xdata()[0] for dot in dots(ax)]
    np.testing.assert_allclose(means, [-0.2, 0.0, 0.02, 0.10])
    expected = summary[["difference_low", "difference_high"]].fillna(0.0)
    np.testing.assert_allclose(intervals(ax), expected)
    assert ax.lines[0].get_xdata() == [0.0, 0.0]
    assert ax.get_xlabel() == "AUROC above that of\ntangent (95 % CI)"
    assert ax.yaxis_inverted()
    assert fits_its_figure(ax)


def test_forest_fills_only_what_differs(summary) -> None:
    drawn = [
        (dot.get_color(), to_hex(dot.get_mfc())) for dot in dots(plot_forest(summary))
    ]
    assert drawn == [
        (ORANGE, ORANGE.lower()),
        (GREY, "#ffffff"),
        (GREY, "#ffffff"),
        (BLUE, BLUE.lower()),
    ]


def test_forest_writes_scores_and_adjusted_p(summary) -> None:
    assert texts(plot_forest(summary)) == [
        *["AUROC", "0.500", "0.700", "0.720", "0.800"],
        *["p", ".002", "", ".300", "<.001"],
    ]


def test_forest_of_scores_has_no_reference(summary) -> None:
    ax = plot_forest(summary, show="score")
    np.testing.assert_allclose(intervals(ax), summary[["auroc_low", "auroc_high"]])
    assert len(ax.lines) == 4
    assert ax.get_xlabel() == "AUROC (mean, 95 % CI)"
    assert "p" not in texts(ax)
    alone = summary[["auroc", "auroc_low", "auroc_high"]]
    assert plot_forest(alone, metric="auroc").get_xlabel() == ax.get_xlabel()


def test_forest_never_shows_differences_of_another_score(summary) -> None:
    both = summary.assign(f1=0.5, f1_low=0.4, f1_high=0.6)
    both.attrs = summary.attrs
    ax = plot_forest(both, metric="f1")
    assert ax.get_xlabel() == "F1 (mean, 95 % CI)"
    np.testing.assert_allclose(intervals(ax), [[0.4, 0.6]] * 4)
    with pytest.raises(ValueError, match=r"differences of 'f1'\. Got those of 'auroc'"):
        plot_forest(both, metric="f1", show="difference")


def test_forest_says_which_way_a_loss_is_better(summary) -> None:
    losses = summary.rename(columns=lambda name: name.replace("auroc", "log_loss"))
    losses.attrs["metric"] = "log_loss"
    label = plot_forest(losses).get_xlabel()
    assert label == "log loss below that of\ntangent (95 % CI)"


def test_critical_differences_draw_ranks_and_cliques(fits_its_figure) -> None:
    ranks = pd.Series({"ours": 1.2, "tangent": 1.9, LONG: 3.1, "dummy": 3.8})
    cliques = [("ours", "tangent"), ("tangent", LONG, "dummy")]
    ax = plot_critical_differences(CriticalDifference(ranks, 9.0, 0.03, 1.9, cliques))
    (ranked,) = dots(ax)
    np.testing.assert_allclose(ranked.get_xdata(), ranks)
    bars = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
    joined = [np.round(bar.get_ydata()).tolist() for bar in bars]
    assert joined == [[0, 1], [1, 3]]
    assert all(bar.get_xdata()[0] > 4 for bar in bars)
    (scale,) = (line for line in ax.lines if line.get_marker() == "|")
    assert np.ptp(scale.get_xdata()) == pytest.approx(1.9)
    assert texts(ax) == ["critical difference 1.90"]
    assert ax.get_xlabel() == "mean rank, 1 is best\n(Friedman p = .030)"
    assert ax.get_xticks().tolist() == [1, 2, 3, 4]
    assert fits_its_figure(ax)


@pytest.mark.parametrize("n_models", [3, 8, 9, 12, 16, 30])
def test_rank_ticks_run_from_first_to_last(n_models, rng) -> None:
    scores = pd.DataFrame(rng.normal(size=(5, n_models)))
    ticks = plot_critical_differences(critical_difference(scores)).get_xticks()
    assert [ticks[0], ticks[-1]] == [1, n_models]
    assert len(ticks) <= 9
    assert np.diff(ticks).min() >= np.diff(ticks).max() / 2


def test_cost_marks_the_front_and_numbers_the_models(summary, fits_its_figure) -> None:
    ax = plot_cost(summary)
    points = dots(ax)
    np.testing.assert_allclose(
        [[p.get_xdata()[0], p.get_ydata()[0]] for p in points],
        summary[["seconds", "auroc"]],
    )
    assert [p.get_mec() for p in points] == [BLUE, BLUE, GREY, BLUE]
    front = ax.lines[0]
    assert front.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(front.get_xdata(), [0.01, 2.0, 60.0])
    assert texts(ax) == ["1", "2", "3", "4"]
    key = [text.get_text() for text in ax.get_legend().get_texts()]
    assert key[:2] == ["1. dummy", "2. tangent"]
    assert " ".join(key[2].split()) == f"3. {LONG}"
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "seconds to fit")
    assert fits_its_figure(ax)


def test_cost_has_room_for_no_parameters(summary) -> None:
    ax = plot_cost(summary, cost="parameters")
    assert ax.get_xscale() == "symlog"
    ax.figure.draw_without_rendering()
    labels = [tick.get_text() for tick in ax.get_xticklabels()]
    assert "0" in "".join(labels[:2])
    assert len(labels) == len(set(labels))
    nothing = plot_cost(summary.assign(parameters=0), cost="parameters")
    assert nothing.get_xscale() == "linear"


def test_front_of_a_loss_goes_down(summary) -> None:
    ax = plot_cost(summary.assign(log_loss=[0.7, 0.6, 0.5, 0.65]), metric="log_loss")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.7, 0.6, 0.5])
    assert ax.get_ylabel() == "log loss (lower is better)"


def test_pictures_draw_into_the_given_axes(summary, fits_its_figure) -> None:
    from matplotlib.figure import Figure

    result = critical_difference(pd.DataFrame(np.eye(3), columns=list("abc")))
    for draw in (
        lambda ax: plot_forest(summary, ax=ax),
        lambda ax: plot_cost(summary, ax=ax),
        lambda ax: plot_critical_differences(result, ax=ax),
    ):
        ax = Figure(figsize=(3.5, 3.2), layout="constrained").subplots()
        assert draw(ax) is ax
        assert fits_its_figure(ax)


def test_pictures_of_many_long_names_fit(rng, fits_its_figure) -> None:
    names = [f"{LONG} {i}" for i in range(20)]
    scores = rng.uniform(0.5, 0.8, size=(6, 20))
    mean = scores.mean(axis=0)
    summary = pd.DataFrame(
        {"auroc": mean, "auroc_low": mean - 0.1, "auroc_high": mean + 0.1},
        index=names,
    ).assign(seconds=10 ** rng.uniform(-1, 4, size=20))
    ranks = critical_difference(pd.DataFrame(scores, columns=names))
    assert fits_its_figure(plot_forest(summary, metric="auroc"))
    assert fits_its_figure(plot_cost(summary, metric="auroc"))
    assert fits_its_figure(plot_critical_differences(ranks))


def test_pictures_refuse_what_is_not_there(summary) -> None:
    with pytest.raises(ValueError, match="plot_forest needs a column 'f1'"):
        plot_forest(summary, metric="f1")
    with pytest.raises(ValueError, match="plot_forest needs a column 'difference'"):
        plot_forest(summary[["auroc"]], show="difference")
    with pytest.raises(ValueError, match="plot_cost needs a column 'seconds'"):
        plot_cost(summary.drop(columns="seconds"))
    with pytest.raises(ValueError, match="`cost` must be one of"):
        plot_cost(summary, cost="watts")
    with pytest.raises(ValueError, match="`show` must be one of"):
        plot_forest(summary, show="everything")
