"""Curves of a comparison that is done with several shares of something."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from _runs import can_draw, report
from _tasks import Task

from bsym_sklearn.analysis.results import score_matrix
from bsym_sklearn.analysis.tables import printed
from bsym_sklearn.files import write_atomically

# Okabe & Ito (2008), Color Universal Design.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<>"


def report_curves(
    folder: Path,
    task: Task,
    results: pd.DataFrame,
    options: argparse.Namespace,
    *,
    axis: str,
    reference: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Write a table (models x share) and its figure, and the tests of every share.

    `results` has a column ``share``; every share has the same splits and models.
    """
    shares = sorted(results["share"].unique())
    parts = {share: results[results["share"] == share] for share in shares}
    rows = []
    for share, part in parts.items():
        part = part.drop(columns="share")
        name = f"share-{share:.0%}".removesuffix("%")
        summary, _ = report(
            folder / name, task, part, options, reference=reference, pictures=False
        )
        metric = summary.attrs["metric"]
        matrix = score_matrix(part, metric)
        scans = part.groupby("label", sort=False)["n_train"].mean()
        rows += [
            (label, share, scans[label], matrix[label].mean(), matrix[label].std())
            for label in summary.index
        ]
    columns = ["model", "share", "n_train", metric, f"{metric}_sd"]
    curves = pd.DataFrame(rows, columns=columns)
    curves.to_csv(folder / "curves.csv", index=False)
    head = (
        f"{task.name}: {printed(metric)} by {axis}, mean ± standard deviation over "
        f"{len(task.splits)} splits, {len(options.seeds)} seeds averaged in each. The "
        "folders share-* have tests, all scores and predictions."
    )
    table = _wide(curves, metric)
    text = "\n".join([head, "", table.to_string(), "", *notes])
    write_atomically(folder / "curves.txt", text + "\n")
    said = "".join(f"- {note}\n" for note in notes)
    write_atomically(
        folder / "curves.md", as_markdown(table) + f"\n{said}" * bool(said)
    )
    if can_draw():
        _draw_curves(curves, metric, axis, folder / "curves.png")
    return text


def as_markdown(table: pd.DataFrame) -> str:
    """Return a table of text with its index as Markdown."""
    flat = table.reset_index()
    lines = [[str(x) for x in flat.columns], ["---"] * flat.shape[1]]
    lines += [[str(x) for x in row] for row in flat.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _wide(curves: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return models x shares as text, with the scans to learn from if they vary."""
    text = [
        f"{mean:.3f} ± {sd:.3f}"
        for mean, sd in zip(curves[metric], curves[f"{metric}_sd"], strict=True)
    ]
    shares = [f"{share:.0%}" for share in curves["share"]]
    sizes = curves["n_train"]
    if not np.isclose(sizes, sizes[0]).all():
        pairs = zip(shares, sizes, strict=True)
        shares = [f"{share} ({n_scans:.0f} scans)" for share, n_scans in pairs]
    long = curves.assign(text=text, share=shares)
    wide = long.pivot_table(
        index="model", columns="share", values="text", aggfunc="first", sort=False
    )
    return wide.rename_axis(columns=None)


def _draw_curves(curves: pd.DataFrame, metric: str, axis: str, path: Path) -> None:
    """Draw one line per model, with the spread over splits."""
    from matplotlib.figure import Figure

    from bsym_sklearn.plotting.axes import COLUMN_WIDTH, tidy

    models = curves["model"].unique()
    height = 2.4 + 0.14 * len(models)  # the legend is below
    figure = Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")
    ax = figure.subplots()
    styles = zip(cycle(COLORS), cycle(MARKERS), strict=False)
    for model, (color, marker) in zip(models, styles, strict=False):
        line = curves[curves["model"] == model]
        ax.errorbar(
            100 * line["share"],
            line[metric],
            yerr=line[f"{metric}_sd"].fillna(0),
            color=color,
            marker=marker,
            ms=3,
            lw=1,
            elinewidth=0.5,
            label=model,
        )
    ax.set_xlabel(f"{axis} (%)")
    ax.set_ylabel(f"{printed(metric)} (mean ± SD)")
    tidy(ax)
    figure.legend(loc="outside lower center", fontsize=6, frameon=False)
    figure.savefig(path, dpi=200)
