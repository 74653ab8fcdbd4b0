"""From finished cells to tables, files and plain sentences."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _cells import LIBRARIES, Comparison, write_atomically
from _models import PRETRAINING_PAIRS, RIVALS, ROWS
from _scores import LOWER_IS_BETTER, METRICS
from _tasks import SPLIT_SEED


def tabulate(comparison: Comparison, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return mean and standard deviation over folds and seeds, one row per model.

    Seconds are those of one fold, pretraining included, with one thread.
    """
    scores = pd.DataFrame(
        [
            {"row": r["row"], "seconds": r["seconds"], "parameters": r["parameters"]}
            | r["scores"]
            for r in records
        ]
    )
    by_row = scores.groupby("row", sort=False)
    table = pd.DataFrame(index=list(comparison.rows))
    for metric in METRICS[comparison.task.kind]:
        table[metric] = by_row[metric].mean()
        table[f"{metric}_sd"] = by_row[metric].std()
    table["seconds"] = by_row["seconds"].mean()
    table["parameters"] = by_row["parameters"].max()
    table["fits"] = by_row.size()
    table.index = pd.Index([ROWS[row].label for row in table.index], name="model")
    return table


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as text, each metric with its spread."""
    text = pd.DataFrame(index=table.index)
    for metric in (m for m in table if f"{m}_sd" in table):
        spread = table[f"{metric}_sd"]
        text[metric.replace("_", " ")] = [
            f"{mean:.3f}" + ("" if np.isnan(sd) else f" ± {sd:.3f}")
            for mean, sd in zip(table[metric], spread, strict=True)
        ]
    text["seconds"] = [f"{s:.1f}" for s in table["seconds"]]
    text["parameters"] = [f"{int(n):,}" for n in table["parameters"]]
    return text


def as_markdown(text: pd.DataFrame) -> str:
    """Return a table of strings in Markdown."""
    lines = [["model", *text.columns], ["---"] * (text.shape[1] + 1)]
    lines += [
        [label, *cells] for label, cells in zip(text.index, text.values, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def by_fold(records: list[dict[str, Any]], row: str, metric: str) -> np.ndarray:
    """Return one score per fold, seeds averaged."""
    scores = pd.DataFrame(
        [(r["fold"], r["scores"][metric]) for r in records if r["row"] == row],
        columns=["fold", "score"],
    )
    return scores.groupby("fold")["score"].mean().to_numpy()


def judge(
    records: list[dict[str, Any]], row: str, rival: str, metric: str
) -> tuple[str, str]:
    """Return "beats", "loses to" or "is level with", and the numbers behind it.

    A row loses if its mean is lower, and beats only if it is worse in no fold: the
    doubt goes to the rival. This describes the folds; it is no test.
    """
    ours, theirs = (by_fold(records, name, metric) for name in (row, rival))
    gain = theirs - ours if metric in LOWER_IS_BETTER else ours - theirs
    verdict = "is level with"
    if gain.mean() < 0:
        verdict = "loses to"
    elif (gain >= 0).all() and (gain > 0).any():
        verdict = "beats"
    numbers = (
        f"{metric.replace('_', ' ')} {ours.mean():.3f} against {theirs.mean():.3f}, "
        f"better in {(gain > 0).sum()} and worse in {(gain < 0).sum()} of {len(gain)} "
        "folds"
    )
    return verdict, numbers


def conclusions(comparison: Comparison, records: list[dict[str, Any]]) -> list[str]:
    """Say which rows lose to the best one without a network, and what pretraining did.

    The best one is chosen by its score in these same folds, in its favour.
    """
    metric, rows = comparison.task.metric, comparison.rows
    sign = -1 if metric in LOWER_IS_BETTER else 1
    sentences = []
    rivals = [row for row in RIVALS if row in rows]
    if rivals:
        best = max(rivals, key=lambda r: sign * by_fold(records, r, metric).mean())
        for row in (r for r in rows if ROWS[r].seeded):
            verdict, numbers = judge(records, row, best, metric)
            sentences.append(
                f"{ROWS[row].label} {verdict} {ROWS[best].label} ({numbers})."
            )
    for with_it, without in PRETRAINING_PAIRS:
        if with_it in rows and without in rows:
            verdict, numbers = judge(records, with_it, without, metric)
            sentences.append(
                f"Pretraining: {ROWS[with_it].label} {verdict} {ROWS[without].label} "
                f"({numbers})."
            )
    return sentences


def write_results(
    comparison: Comparison, records: list[dict[str, Any]], notes: Sequence[str]
) -> str:
    """Write tables, predictions and settings into the folder; return the text."""
    folder = comparison.folder
    table = tabulate(comparison, records)
    readable = format_table(table)
    n_folds, n_seeds = len(comparison.task.folds), len(comparison.seeds)
    text = "\n".join(
        [
            f"{comparison.task.name}: mean ± standard deviation over {n_folds} folds x "
            f"{n_seeds} seeds",
            "",
            readable.to_string(),
            "",
            *notes,
        ]
    )
    table.to_csv(folder / "table.csv")
    write_atomically(folder / "table.txt", text + "\n")
    body = as_markdown(readable) + "\n" + "\n".join(f"- {note}" for note in notes)
    write_atomically(folder / "table.md", body + "\n")
    predictions(comparison, records).to_csv(folder / "predictions.csv", index=False)
    write_atomically(
        folder / "settings.json", json.dumps(describe(comparison), indent=2) + "\n"
    )
    return text


def predictions(comparison: Comparison, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one line per model, fold, seed and test row."""
    frames = []
    for r in records:
        frame = pd.DataFrame(
            {
                "model": ROWS[r["row"]].label,
                "fold": r["fold"],
                "seed": r["seed"],
                "scan": r["test"],
                "truth": r["truth"],
                "predicted": r["predicted"],
            }
        )
        if r["probability"] is not None:
            names = [f"probability_{c}" for c in comparison.task.classes]
            frame[names] = np.asarray(r["probability"])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def describe(comparison: Comparison) -> dict[str, Any]:
    """Return all that is needed to repeat the comparison."""
    task = comparison.task
    return {
        "command": " ".join(sys.argv),
        "task": task.name,
        "kind": task.kind,
        "n_scans": len(task.y),
        "n_groups": len(np.unique(task.groups)),
        "n_folds": len(task.folds),
        "seeds": list(comparison.seeds),
        "split_seed": SPLIT_SEED,
        "confounds": list(task.confounds),
        "settings": asdict(comparison.settings),
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Return the git commit of this tree, if it is one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
