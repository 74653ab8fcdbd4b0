from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Wedge

from bsym_sklearn.analysis.attention import network_blocks, top_edges
from bsym_sklearn.plotting.chords import plot_chord
from bsym_sklearn.plotting.colors import PALETTE, network_colors

COLUMN_WIDTH = 3.5  # inches
NETWORKS = np.repeat(["Vis", "Default", "SalVentAttn", "SomMot"], [4, 6, 3, 5])


@pytest.fixture
def ax():
    return Figure(figsize=(COLUMN_WIDTH, 3.8), layout="constrained").subplots()


@pytest.fixture
def matrix(rng) -> np.ndarray:
    return rng.dirichlet(np.ones(18), size=18)


def ribbons_of(ax) -> list[PathPatch]:
    """Return the ribbons, the strongest first."""
    return [p for p in ax.patches if isinstance(p, PathPatch)][::-1]


def ends_of(ribbon) -> list[float]:
    """Return the radius at which a ribbon begins and ends."""
    points = ribbon.get_path().vertices
    on_circles = points[np.linalg.norm(points, axis=1) > 0.5]
    return np.linalg.norm(on_circles[[0, 7]], axis=1).tolist()


def test_ribbons_are_the_strongest_pairs_in_the_colour_of_the_source(
    ax, matrix, fits_its_figure
) -> None:
    assert plot_chord(matrix, NETWORKS, ax=ax, n_edges=20) is ax
    edges = top_edges(matrix, 20, networks=NETWORKS)
    colors = network_colors(NETWORKS)
    drawn = [to_hex(ribbon.get_facecolor()) for ribbon in ribbons_of(ax)]
    assert drawn == [colors[name].lower() for name in edges["source_network"]]
    begin, end = ends_of(ribbons_of(ax)[0])
    assert begin > end  # the target's end is shorter
    assert fits_its_figure(ax)


def test_ring_has_an_arc_per_network_as_long_as_it_has_regions(ax, matrix) -> None:
    plot_chord(matrix, NETWORKS, ax=ax)
    arcs = [p for p in ax.patches if isinstance(p, Wedge)]
    assert [text.get_text() for text in ax.texts] == sorted(set(NETWORKS))
    spans = np.array([(arc.theta2 - arc.theta1) % 360 for arc in arcs])
    np.testing.assert_allclose(spans / spans[0], np.array([6, 3, 5, 4]) / 6)
    assert spans.sum() == pytest.approx(360 - 4 * 3)  # with gaps of 3 degrees


def test_bars_are_what_goes_to_other_networks(ax, matrix) -> None:
    plot_chord(matrix, NETWORKS, ax=ax)
    (bars,) = [c for c in ax.collections if isinstance(c, PatchCollection)]
    radii = [np.linalg.norm(path.vertices, axis=1).max() for path in bars.get_paths()]
    other = NETWORKS[:, None] != NETWORKS
    expected = (matrix * other).sum(1)
    np.testing.assert_allclose(
        np.array(radii) - 0.9, 0.2 * expected / expected.max(), atol=2e-3
    )
    assert "attention to other networks, to 0.9" in ax.get_xlabel()


def test_blocks_make_one_arc_each_and_ribbons_as_wide_as_their_weight(
    ax, fits_its_figure
) -> None:
    blocks = np.array([[0.9, 0.4, 0.0], [0.1, 0.9, 0.0], [0.2, 0.1, 0.5]])
    plot_chord(blocks, ["a", "b", "c"], ax=ax, n_edges=3, bars=[0, 1, 2])
    starts = [ribbon.get_path().vertices[[0, 5]] for ribbon in ribbons_of(ax)]
    angles = [np.arctan2(ends[:, 1], ends[:, 0]) for ends in starts]
    widths = [abs(np.angle(np.exp(1j * (a[1] - a[0])))) for a in angles]
    np.testing.assert_allclose(np.array(widths) / widths[0], [1, 0.5, 0.25])
    assert fits_its_figure(ax)


def test_negative_weights_are_hollow(ax) -> None:
    blocks = np.array([[0.0, -0.4], [0.1, 0.0]])
    plot_chord(blocks, ["a", "b"], ax=ax)
    strongest, other = ribbons_of(ax)
    assert strongest.get_facecolor()[3] == 0
    assert strongest.get_edgecolor()[3] > 0
    assert other.get_facecolor()[3] > 0


def test_many_long_names_fit(ax, rng, fits_its_figure) -> None:
    names = np.array([f"{n} left hemisphere {k}" for k in range(5) for n in "abcd"])
    plot_chord(rng.random((20, 20)), names, ax=ax)
    assert fits_its_figure(ax)
    assert len({text.get_rotation() for text in ax.texts}) > 10


def test_it_takes_what_network_blocks_returns(ax, matrix) -> None:
    blocks = network_blocks(matrix, NETWORKS)
    plot_chord(blocks, blocks.index, ax=ax)
    assert len(ribbons_of(ax)) == 12


def test_chord_refuses_what_does_not_fit(matrix) -> None:
    with pytest.raises(ValueError, match="one name per region"):
        plot_chord(matrix, NETWORKS[:3])
    with pytest.raises(ValueError, match="square maps"):
        plot_chord(matrix[:3], NETWORKS)
    with pytest.raises(ValueError, match="one bar per row, at least 0"):
        plot_chord(matrix, NETWORKS, bars=-np.ones(18))
    with pytest.raises(ValueError, match=r"one bar per row.*Got shape \(2,\)"):
        plot_chord(matrix, NETWORKS, bars=[1, 2])


def test_colours_are_repeated_only_after_eight() -> None:
    colors = network_colors([f"n{i}" for i in range(9)])
    assert len(set(PALETTE)) == len(PALETTE) == 8
    assert len(set(colors.values())) == 8
    assert colors["n8"] == colors["n0"]
