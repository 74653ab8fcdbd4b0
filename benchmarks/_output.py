"""The files that a comparison leaves: tables, predictions, pictures and settings."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from _tasks import Task

from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.analysis.results import prediction_table
from bsym_sklearn.analysis.store import write_atomically
from bsym_sklearn.analysis.tables import format_table

SUFFIXES = {"text": "txt", "markdown": "md", "latex": "tex", "csv": "csv"}
# Columns of results that are in other files, or are places on this machine.
ELSEWHERE = ["rows", "groups", "y_true", "y_pred", "y_proba", "classes", "versions"]
ELSEWHERE += ["weights"]


def write_results(
    folder: Path,
    results: pd.DataFrame,
    summary: pd.DataFrame,
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """Write everything into a folder; return the table and the notes as text."""
    metric = summary.attrs["metric"]
    n_splits, n_seeds = summary["splits"].max(), summary["seeds"].max()
    head = (
        f"{settings['task']}: mean ± standard deviation over {n_splits} splits, "
        f"{n_seeds} seeds averaged in each; compared by {metric}"
    )
    tables = {style: format_table(summary, style) for style in SUFFIXES}
    text = "\n".join([head, "", tables["text"], "", *notes])
    tables["text"] = text
    tables["markdown"] += "\n\n" + "\n".join(f"- {note}" for note in notes)
    for style, suffix in SUFFIXES.items():
        write_atomically(folder / f"table.{suffix}", tables[style].rstrip("\n") + "\n")
    prediction_table(results).to_csv(folder / "predictions.csv", index=False)
    results.drop(columns=ELSEWHERE).to_csv(folder / "cells.csv", index=False)
    write_atomically(
        folder / "settings.json", json.dumps(settings, indent=2, default=str) + "\n"
    )
    return text


def describe(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that is needed to repeat a comparison."""
    provenance = current_provenance()
    return {
        "command": " ".join(sys.argv),
        "task": task.name,
        "kind": task.kind,
        "n_scans": len(task.y),
        "n_groups": len(set(task.groups.tolist())),
        "splits": [split.name for split in task.splits],
        "confounds": list(task.confounds),
        "options": dict(options),
        **provenance._asdict(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def draw(folder: Path, summary: pd.DataFrame) -> None:
    """Draw intervals and costs."""
    from bsym_sklearn.plotting import plot_cost, plot_forest

    axes = {
        "forest": plot_forest(summary),
        "cost_seconds": plot_cost(summary, cost="seconds"),
        "cost_parameters": plot_cost(summary, cost="parameters"),
    }
    for name, ax in axes.items():
        ax.figure.savefig(folder / f"{name}.png", dpi=200)
