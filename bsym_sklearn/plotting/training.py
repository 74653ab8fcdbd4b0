"""How training went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, ORANGE, make_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = {
    "train_loss": ("training", BLUE, "-"),
    "valid_loss": ("validation", ORANGE, "--"),
}


def plot_training(history: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the losses of each epoch.

    Parameters
    ----------
    history : DataFrame
        ``history_`` of a fitted estimator: ``epoch``, ``train_loss`` and, if scans
        were held out, ``valid_loss``.
    ax : matplotlib Axes or None, default=None
        Where to draw; a new figure if None.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from bsym_sklearn.plotting import plot_training
    >>> history = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5]})
    >>> len(plot_training(history).lines)
    1
    """
    ax = make_axes(ax, height=2.0)
    for column, (name, color, style) in CURVES.items():
        if column in history:
            ax.plot(
                history["epoch"],
                history[column],
                style,
                color=color,
                lw=1.4,
                label=name,
            )
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="epoch", ylabel="loss")
    tidy(ax)
    ax.legend(frameon=False, fontsize=FONT_SIZE)
    return ax
