from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib.figure import Figure

from bsym_sklearn.plotting.series import (
    plot_carpet,
    plot_connectomes,
    plot_time_courses,
    plot_weight_distribution,
)


@pytest.fixture
def ax():
    return Figure(figsize=(3.5, 2.5), layout="constrained").subplots()


@pytest.fixture
def scan(rng) -> np.ndarray:
    return rng.normal(size=(20, 5))


def texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_a_carpet_is_sorted_by_network_and_has_its_reconstruction_below(
    ax, scan, fits_its_figure
) -> None:
    networks = ["Vis", "Cont", "Vis", "Cont", "Vis"]
    assert plot_carpet(scan, scan / 2, ax=ax, networks=networks, t_r=0.72) is ax
    above, below = (image.get_array() for image in ax.images)
    np.testing.assert_array_equal(above, scan[:, [1, 3, 0, 2, 4]].T)
    np.testing.assert_array_equal(below, above / 2)
    assert ax.images[0].get_extent()[2] < ax.images[1].get_extent()[3]
    assert ax.yaxis_inverted()
    assert texts(ax.get_yticklabels()) == ["Cont", "Vis"] * 2
    assert texts(ax.texts) == ["recorded", "reconstructed"]
    assert ax.get_xlabel() == "time (s)"
    assert ax.get_xlim()[1] == pytest.approx(14.4)
    assert fits_its_figure(ax)


def test_a_carpet_may_stand_alone(ax, scan) -> None:
    plot_carpet(scan, ax=ax)
    assert len(ax.images) == 1
    assert ax.get_xlabel() == "time point"
    assert ax.get_ylabel() == "region"
    assert ax.figure.axes[1].get_ylabel() == "signal (standard deviations)"
    assert plot_carpet(scan).figure.get_figwidth() == 3.5


def test_time_courses_show_what_was_hidden(ax, scan, fits_its_figure) -> None:
    hidden = np.zeros(scan.shape, bool)
    hidden[4:7, 3] = hidden[10, 1] = True
    labels = [f"region {r}" for r in "abcde"]
    plot_time_courses(
        scan, scan / 2, hidden, ax=ax, regions=[3, 1], labels=labels, t_r=2.0
    )
    recorded, reconstructed, second, _ = (line.get_ydata() for line in ax.lines)
    np.testing.assert_allclose(recorded, scan[:, 3])
    np.testing.assert_allclose(reconstructed, scan[:, 3] / 2)
    np.testing.assert_allclose(second, scan[:, 1] - 5)  # a step below
    assert ax.lines[0].get_xdata()[-1] == 38.0
    shaded = [part.get_paths()[0].get_extents() for part in ax.collections]
    # between the visible neighbours of what was hidden
    assert [(box.x0, box.x1) for box in shaded] == [(6.0, 14.0), (18.0, 22.0)]
    assert texts(ax.get_yticklabels()) == ["region d", "region b"]
    names = texts(ax.get_legend().get_texts())
    assert names == ["hidden from the model", "recorded", "reconstructed"]
    assert fits_its_figure(ax)


def test_time_courses_choose_regions_that_are_hidden(ax, scan) -> None:
    plot_time_courses(scan, scan, np.arange(5) == 4, ax=ax)
    assert texts(ax.get_yticklabels()) == ["0", "1", "2", "4"]
    plain = plot_time_courses(scan, scan)
    assert texts(plain.get_legend().get_texts()) == ["recorded", "reconstructed"]


def test_connectomes_share_their_colours(ax, rng, fits_its_figure) -> None:
    weights = rng.random((6, 6))
    networks = list("bababa")
    assert plot_connectomes(weights, weights / 2, ax=ax, networks=networks) is ax
    order = [1, 3, 5, 0, 2, 4]
    left, right = ax.images
    np.testing.assert_array_equal(left.get_array(), weights[np.ix_(order, order)])
    np.testing.assert_array_equal(right.get_array(), left.get_array() / 2)
    assert left.get_clim() == right.get_clim()
    assert left.get_clim()[0] == 0
    assert left.get_extent()[1] < right.get_extent()[0]
    assert texts(ax.get_yticklabels()) == ["a", "b"]
    assert texts(ax.texts) == ["observed", "reconstructed"]
    assert fits_its_figure(ax)
    signed = plot_connectomes(weights - 0.5, weights)
    low, high = signed.images[0].get_clim()
    assert low == -high


def test_weights_are_counted_once_per_edge(ax, rng, fits_its_figure) -> None:
    observed = rng.random((3, 5, 5))
    observed[1] = np.nan  # a scan without a connectome
    reconstructed = np.full((3, 5, 5), 0.5)
    plot_weight_distribution(observed, reconstructed, ax=ax)
    filled, outline = ax.patches
    steps = filled.get_xy()
    edges, heights = np.unique(steps[:, 0]), []
    first, second = np.triu_indices(5, 1)
    values = observed[[0, 2]][:, first, second].ravel()
    heights = np.histogram(values, bins=edges)[0] / len(values)
    assert steps[:, 1].max() == pytest.approx(heights.max())
    assert outline.get_xy()[:, 1].max() == pytest.approx(1.0)
    assert texts(ax.get_legend().get_texts()) == ["observed", "reconstructed"]
    assert ax.get_ylabel() == "share of edges"
    assert fits_its_figure(ax)


def test_pictures_refuse_shapes_that_do_not_fit(scan) -> None:
    with pytest.raises(ValueError, match=r"Got \(20, 5\) and \(19, 5\)"):
        plot_carpet(scan, scan[1:])
    with pytest.raises(ValueError, match=r"one name per region\. Got 3 for 5 regions"):
        plot_carpet(scan, networks=list("abc"))
    with pytest.raises(ValueError, match=r"hidden of shape \(20, 5\) or \(5,\)"):
        plot_time_courses(scan, scan, np.zeros(20, bool))
    with pytest.raises(ValueError, match=r"two square matrices of one size"):
        plot_connectomes(np.eye(3), np.eye(4))
    with pytest.raises(ValueError, match=r"Got \(4, 3\) and \(4, 3\)"):
        plot_weight_distribution(np.ones((4, 3)), np.ones((4, 3)))
