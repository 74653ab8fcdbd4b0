"""The files that a comparison leaves: tables, predictions, pictures and settings."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from _tasks import Task

from bsym_sklearn.analysis import result_files
from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.files import write_atomically


def write_results(
    folder: Path,
    results: pd.DataFrame,
    summary: pd.DataFrame,
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """Write everything into a folder; return the table and the notes as text."""
    text = result_files.write_results(folder, results, summary, notes, settings["task"])
    write_atomically(
        folder / "settings.json", json.dumps(settings, indent=2, default=str) + "\n"
    )
    return text


def describe(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that is needed to repeat a comparison."""
    provenance = current_provenance()
    return {
        "command": shlex.join(sys.argv),
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
