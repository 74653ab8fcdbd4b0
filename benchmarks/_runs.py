"""What the scripts on the paper's tasks share: options, models, runs and reports."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from _output import describe, draw, write_results
from _tasks import GROUP, Task, cohort_task
from sklearn.base import clone

from bsym_sklearn import Candidate, make_candidate
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.analysis.splits import Split
from bsym_sklearn.analysis.tables import conclusions, strongest_rival
from bsym_sklearn.data import load_cohort

OUTPUT = Path(__file__).resolve().parents[1] / "demo_output"
MODALITIES = ("fmri", "sc")
# Linear models of the same scans, by the modalities that they read.
CLASSICAL = {"fmri": "tangent", "sc": "sc", "both": "tangent+sc"}


def make_parser(
    description: str | None, *, several_targets: bool = False
) -> argparse.ArgumentParser:
    """Return the options that all of these scripts have."""
    command = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--cohort", type=Path, required=True, help="folder with participants.tsv")
    add(
        "--target",
        required=True,
        nargs="+" if several_targets else None,
        metavar="COLUMN",
        help="to predict",
    )
    add("--groups", help="column whose rows stay together (default: participant_id)")
    add("--task", choices=("auto", "classification", "regression"), default="auto")
    add("--folds", type=int, default=5)
    add("--repeats", type=int, default=1, help="of the folds, each shuffled anew")
    add("--size", choices=("small", "base", "large"), default="small")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of what has one")
    add("--window", type=int, help="time points that a network sees at once")
    add("--batch-size", type=int, default=16)
    add("--max-epochs", type=int, help="with targets (default: each model's own)")
    add("--pretrain-epochs", type=int, default=50)
    add("--metric", help="to test by (default: AUROC, accuracy or R2)")
    add("--rope", type=float, default=0.01, help="a difference that is none")
    add("--out", type=Path, help="folder for results; finished fits in it are kept")
    add("--n-jobs", type=int, default=2, help="fits side by side, one thread each")
    add("--verbose", action="count", default=0, help="show the progress everywhere")
    return command


def output_folder(options: argparse.Namespace, script: str) -> Path:
    """Return the folder for results."""
    name = f"{script}-{options.cohort.resolve().name}"
    return Path(options.out or OUTPUT / name)


def present(cohort: pd.DataFrame) -> tuple[str, ...]:
    """Return the modalities of which there is a scan."""
    return tuple(m for m in MODALITIES if m in cohort and cohort[m].notna().any())


def complete_task(
    cohort: pd.DataFrame,
    target: str,
    needs: Sequence[str],
    options: argparse.Namespace,
) -> tuple[Task, list[str]]:
    """Return the task on the scans that have all of `needs`, and a note on the others.

    Models of one modality and of two are then judged on the same scans.
    """
    lacking = [m for m in needs if m not in present(cohort)]
    if lacking:
        raise ValueError(
            f"This benchmark needs scans of {list(needs)}. Got none of {lacking} in "
            f"{options.cohort.name!r}. Use a cohort that has them."
        )
    is_complete = cohort[list(needs)].notna().all(axis=1)
    task = cohort_task(
        cohort[is_complete].reset_index(drop=True),
        target,
        groups=options.groups,
        kind=options.task,
        n_folds=options.folds,
        n_repeats=options.repeats,
    )
    n_left_out = int((~is_complete).sum())
    return task, [
        f"{n_left_out} of {len(cohort)} scans lack one of {list(needs)} and are left "
        "out for all models."
    ] * bool(n_left_out)


def read_complete_task(
    options: argparse.Namespace, needs: Sequence[str]
) -> tuple[Task, list[str]]:
    """Read the cohort, see :func:`complete_task`."""
    cohort = load_cohort(options.cohort)
    return complete_task(cohort, options.target, needs, options)


def budget(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that all models share."""
    names = ("size", "window", "batch_size", "max_epochs", "pretrain_epochs")
    return {"group_column": GROUP} | {name: getattr(options, name) for name in names}


def brainsymphony(
    label: str,
    kind: str,
    options: argparse.Namespace,
    *,
    pretraining: bool = True,
    **parameters: Any,
) -> Candidate:
    """Return BrainSymphony with other parameters, its pretraining with them too.

    The comparison pretrains once per split and seed for all models that differ in
    nothing that concerns pretraining.
    """
    name = f"brainsymphony-{'finetuned' if pretraining else 'scratch'}"
    made = make_candidate(name, kind, **budget(options))
    pretrainer = made.pretrainer
    if pretrainer is not None:
        known = pretrainer.get_params(deep=False)
        shared = {key: value for key, value in parameters.items() if key in known}
        pretrainer = clone(pretrainer).set_params(**shared)
    return replace(
        made,
        estimator=clone(made.estimator).set_params(**parameters),
        label=label,
        pretrainer=pretrainer,
    )


def run(
    models: Sequence[str] | Mapping[str, Any],
    task: Task,
    folder: Path,
    options: argparse.Namespace,
    *,
    splits: Sequence[Split] | None = None,
    seeds: Sequence[int] | None = None,
    level: str = "A",
) -> pd.DataFrame:
    """Compute what is not there yet."""
    return compare(
        models,
        task.X,
        task.y,
        groups=task.groups,
        cv=task.splits if splits is None else splits,
        task=task.kind,
        seeds=options.seeds if seeds is None else seeds,
        level=level,
        store=folder,
        n_jobs=options.n_jobs,
        verbose=options.verbose,
        **budget(options),
    )


def report(
    folder: Path,
    task: Task,
    results: pd.DataFrame,
    options: argparse.Namespace,
    *,
    reference: str | None = None,
    notes: Sequence[str] = (),
    pictures: bool = True,
) -> tuple[pd.DataFrame, str]:
    """Write tables, predictions and settings; return the summary and the text."""
    tests = {"metric": options.metric, "rope": options.rope}
    if reference is None:
        plain = summarize(results, metric=options.metric, n_resamples=0)
        reference = strongest_rival(plain)
    summary = summarize(results, reference=reference, **tests)
    said = [*conclusions(results, reference=reference, **tests), *notes]
    settings = describe(task, vars(options))
    text = write_results(folder, results, summary, said, settings)
    if pictures and can_draw():
        draw(folder, summary)
    return summary, text


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None
