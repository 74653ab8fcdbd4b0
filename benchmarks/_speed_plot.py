"""The picture of speed.py: how much faster, and how cost grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _speed_plan import Plan
from _speed_table import Row
from _speed_works import (
    BACKWARD,
    COMPILED,
    FMRI_WORKS,
    FORWARD,
    REFERENCE,
    SC_STEP,
    SC_WORKS,
    STEP,
    TORCH,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsym_sklearn.files import replacing
from bsym_sklearn.plotting.axes import BLUE, FONT_SIZE, GREY, ORANGE, tidy

COLOURS = {REFERENCE: GREY, TORCH: ORANGE, COMPILED: BLUE}
NAMES = {REFERENCE: "official", TORCH: "torch", COMPILED: "compiled"}
STYLES = {FORWARD: "-", BACKWARD: "--"}
SIZE = (7.2, 2.6)  # inches: the width of a page
BAR = 0.38


def draw(rows: Sequence[Row], plan: Plan, path: Path) -> None:
    """Draw what is there of one number of threads, the lowest."""
    works = (*FMRI_WORKS, *SC_WORKS)
    rows = [row for row in rows if row.work in works]
    threads = min((row.threads for row in rows), default=1)
    rows = [row for row in rows if row.threads == threads]
    figure = Figure(figsize=SIZE, layout="constrained")
    ratios, regions, times = figure.subplots(1, 3, width_ratios=[1.2, 1, 1])
    times.sharey(regions)
    _draw_ratios(ratios, rows, plan)
    usual = {"R": plan.n_regions, "T": plan.n_timepoints, "B": 1}
    _draw_scaling(regions, rows, usual, "R", "regions")
    _draw_scaling(times, rows, usual, "T", "time points")
    if regions.lines:
        figure.legend(
            *regions.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(regions.lines),
            fontsize=FONT_SIZE - 1,
            frameon=False,
            handlelength=1.5,
            columnspacing=1.2,
        )
    for ax in (ratios, regions, times):
        tidy(ax)
    with replacing(path) as fresh:
        figure.savefig(fresh, dpi=200, format="png")


def _draw_ratios(ax: Axes, rows: Sequence[Row], plan: Plan) -> None:
    """Draw a bar for each work and variant: times faster than the official code."""
    works = {
        "forward": (FORWARD, plan.n_timepoints, 1),
        "forward + backward": (BACKWARD, plan.n_timepoints, 1),
        "training step": (STEP, plan.n_timepoints, 1),
        f"forward, T = {plan.long}": (FORWARD, plan.long, 1),
        "SC training step": (SC_STEP, None, 1),
    }
    for place, (work, n_timepoints, n_scans) in enumerate(works.values()):
        for row in rows:
            size = (work, plan.n_regions, n_timepoints, n_scans)
            here = (row.work, *row.key[2:5]) == size
            if not here or row.variant not in (TORCH, COMPILED):
                continue
            if row.ratio_to_reference is None:
                continue
            middle = place + BAR / 2 * (1 if row.variant == COMPILED else -1)
            ax.barh(middle, row.ratio_to_reference, BAR, color=COLOURS[row.variant])
            ax.annotate(
                f"{row.ratio_to_reference:.1f}",
                (row.ratio_to_reference, middle),
                (2, 0),
                textcoords="offset points",
                va="center",
                fontsize=FONT_SIZE - 2,
            )
    ax.axvline(1, color=GREY, lw=0.8, ls="--")
    ax.set_yticks(np.arange(len(works)), list(works))
    ax.set_ylim(len(works) - 0.5, -0.5)  # the first row on top
    ax.set_xlabel("times faster than the official code")
    ax.tick_params(axis="y", length=0)


def _draw_scaling(
    ax: Axes, rows: Sequence[Row], usual: dict[str, int], size: str, label: str
) -> None:
    """Draw seconds over one size, both on logarithmic scales."""
    fixed = {other: n for other, n in usual.items() if other != size}
    for work, style in STYLES.items():
        for variant, colour in COLOURS.items():
            line = sorted(
                (getattr(row, size), row.seconds_median)
                for row in rows
                if (row.work, row.variant) == (work, variant)
                and all(getattr(row, other) == n for other, n in fixed.items())
            )
            if len(line) < 2:
                continue
            name = NAMES[variant] + (" + backward" if work == BACKWARD else "")
            x, y = zip(*line, strict=True)
            ax.loglog(x, y, style, color=colour, marker="o", ms=3, lw=1, label=name)
            ax.set_xticks(x, [str(n) for n in x])
    ax.minorticks_off()
    ax.set_xlabel(label)
    if size == "R":  # the other has the same
        ax.set_ylabel("seconds")
