from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bsym_sklearn.plotting.networks import plot_confusion, plot_network_blocks

NAMES = ["Cont", "Default", "DorsAttn", "Limbic", "SalVentAttn", "SomMot", "Vis"]


@pytest.fixture
def ax():
    return Figure(figsize=(3.5, 3.0), layout="constrained").subplots()


@pytest.fixture
def confusion() -> pd.DataFrame:
    counts = np.diag([40, 83, 38, 20, 40, 70, 58])
    counts[0, 1] = 10
    counts[3] = 0  # a network that was never tested
    return pd.DataFrame(counts, NAMES, NAMES)


def test_confusion_shows_shares_of_the_true_network(
    ax, confusion, fits_its_figure
) -> None:
    assert plot_confusion(confusion, ax=ax) is ax
    image = ax.images[0]
    drawn = np.ma.filled(image.get_array().astype(float), np.nan)
    np.testing.assert_allclose(drawn[0, :2], [80, 20])
    assert np.isnan(drawn[3]).all()
    known = np.delete(drawn, 3, axis=0)
    np.testing.assert_allclose(known.sum(axis=1), 100)
    assert image.get_clim() == (0, 100)
    assert [t.get_text() for t in ax.get_yticklabels()] == NAMES
    assert ax.get_xlabel() == "predicted network"
    assert ax.figure.axes[1].get_ylabel() == "regions of the true network (%)"
    assert fits_its_figure(ax)


def test_numbers_can_be_read_on_their_cells(ax, confusion) -> None:
    plot_confusion(confusion, ax=ax)
    image = ax.images[0]
    texts = {tuple(map(int, t.get_position())): t for t in ax.texts}
    assert texts[1, 0].get_text() == "20\n(10)"
    assert texts[2, 0].get_text() == ""
    for (column, row), text in texts.items():
        if text.get_text():
            cell = image.cmap(image.norm(image.get_array()[row, column]))[:3]
            difference = np.subtract(to_rgb(text.get_color()), cell)
            assert abs(difference @ [0.2126, 0.7152, 0.0722]) > 0.45  # luminance
    assert {texts[0, 0].get_color(), texts[1, 0].get_color()} == {"black", "white"}


def test_many_networks_are_drawn_without_numbers(ax, rng) -> None:
    names = [f"n{i}" for i in range(17)]
    table = pd.DataFrame(rng.integers(1, 9, size=(17, 17)), names, names)
    plot_confusion(table, ax=ax)
    assert len(ax.texts) == 0
    assert ax.images[0].get_array().shape == (17, 17)


def test_blocks_of_one_sign_start_at_their_smallest(ax, rng, fits_its_figure) -> None:
    blocks = pd.DataFrame(rng.random((7, 7)) * 1e-3, NAMES, NAMES)
    assert plot_network_blocks(blocks, ax=ax) is ax
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), blocks)
    values = blocks.to_numpy()
    assert image.get_clim() == (values.min(), values.max())
    assert image.get_cmap().name == "cividis"
    assert ax.get_ylabel() == "attending network"
    assert fits_its_figure(ax)


def test_differences_have_colours_around_zero(ax, rng, fits_its_figure) -> None:
    blocks = pd.DataFrame(rng.normal(size=(7, 7)), NAMES, NAMES)
    marks = blocks.abs() > 1.5
    label = "difference of attention weight"
    plot_network_blocks(blocks, label=label, significant=marks, ax=ax)
    low, high = ax.images[0].get_clim()
    assert -low == high == blocks.abs().to_numpy().max()
    assert ax.images[0].get_cmap().name == "PuOr_r"
    starred = {tuple(map(int, t.get_position())) for t in ax.texts if t.get_text()}
    assert starred == {(j, i) for i, j in np.argwhere(marks.to_numpy()).tolist()}
    assert ax.figure.axes[1].get_ylabel() == label
    assert fits_its_figure(ax)


def test_pictures_can_share_a_scale(ax) -> None:
    blocks = pd.DataFrame([[0.1, 0.2], [0.3, 0.9]], NAMES[:2], NAMES[:2])
    plot_network_blocks(blocks, limit=0.5, ax=ax)
    assert ax.images[0].get_clim() == (0, 0.5)
    assert ax.images[0].colorbar.extend == "max"


def test_unknown_blocks_do_not_hide_the_others(ax) -> None:
    blocks = pd.DataFrame([[np.nan, -0.2], [0.3, 0.1]], NAMES[:2], NAMES[:2])
    plot_network_blocks(blocks, ax=ax)
    assert ax.images[0].get_clim() == (-0.3, 0.3)
    assert ax.images[0].get_array().mask[0, 0]


def test_tables_that_do_not_fit_are_refused(confusion) -> None:
    with pytest.raises(ValueError, match="plot_confusion needs the same networks"):
        plot_confusion(confusion.iloc[:, ::-1])
    with pytest.raises(ValueError, match="Got -40"):
        plot_confusion(-confusion.iloc[:1, :1])
    with pytest.raises(ValueError, match="`significant` for the same networks"):
        plot_network_blocks(confusion, significant=confusion.iloc[:2, :2] > 0)
