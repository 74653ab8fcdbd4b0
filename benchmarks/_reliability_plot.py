"""The picture of reliability.py: resident memory against calls."""

from __future__ import annotations

from pathlib import Path

from _reliability_trials import Trials
from matplotlib.figure import Figure

from bsym_sklearn.files import replacing
from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, ORANGE, tidy

SIZE = (6.0, 2.2)  # inches
COLOURS = {"transform": BLUE, "predict_proba of scans in files": ORANGE}


def draw(trials: Trials, path: Path) -> None:
    """Draw calls of fitted models and fits beside each other."""
    figure = Figure(figsize=SIZE, layout="constrained")
    calls, fits = figure.subplots(1, 2, sharey=True)
    for part, rows in trials.parts():
        ax = fits if part == "fit" else calls
        for row in rows:
            if "megabytes" in row:
                colour = COLOURS.get(part, BLUE)
                ax.plot(row["calls"], row["megabytes"], color=colour, lw=1, label=part)
    for ax, name in ((calls, "calls"), (fits, "fits")):
        ax.set_xlabel(name)
        ax.set_ylim(bottom=0)
        tidy(ax)
    calls.set_ylabel("resident memory (MB)")
    if calls.lines:
        calls.legend(fontsize=FONT_SIZE - 2, frameon=False, loc="lower right")
    with replacing(path) as fresh:
        figure.savefig(fresh, dpi=200, format="png")
