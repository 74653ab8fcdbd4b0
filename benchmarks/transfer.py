"""Transfer: pretrain on one cohort, probe and fine-tune on another.

    python benchmarks/transfer.py --source FOLDER --cohort FOLDER --target COLUMN
    python benchmarks/transfer.py --cohort FOLDER --source-rows site NYU --target COLUMN

Pretraining sees all scans of --source, or the rows of --cohort that --source-rows takes
out of it, without targets, once per seed. That nobody in it is tested is checked with
the hashes of participants that are saved with the weights (level B); names have to mean
the same in both cohorts, and one person under two names cannot be found. The rows
beside it are classical models, BrainSymphony from scratch, and BrainSymphony pretrained
on the training rows of a fold (level A).

Both cohorts need the same atlas: weights are bound to their regions, and no option of
the package carries them over to others, ``positions="gradient"`` included. With
--t-r COLUMN, scans are resampled to the repetition time of the source.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _runs import (
    CLASSICAL,
    brainsymphony,
    complete_task,
    make_parser,
    output_folder,
    present,
    report,
    run,
)
from _tasks import GROUP, Task

from bsym_sklearn import make_candidate
from bsym_sklearn.analysis.cells import Pretraining, with_seed
from bsym_sklearn.analysis.cells import run as run_cell
from bsym_sklearn.analysis.identity import describe, hash_of
from bsym_sklearn.analysis.problem import Problem
from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.analysis.tables import conclusions
from bsym_sklearn.data import check_cohort, load_cohort

SCRATCH = "brainsymphony-scratch"


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    source, cohort = read_cohorts(options)
    modality = options.modality or shared_modality(source, cohort)
    needs = ("fmri", "sc") if modality == "both" else (modality,)
    task, notes = complete_task(cohort, options.target, needs, options)
    source = source[source[list(needs)].notna().any(axis=1)].reset_index(drop=True)
    source = with_people(source, task, options)
    check_atlas(source, task.X)
    folder = output_folder(options, "transfer")
    parameters = {"modalities": modality, "t_r": options.t_r}
    parts = [run(here(task, modality, parameters, options), task, folder, options)]
    seconds = []
    for seed in options.seeds:
        weights, took = pretrain(source, parameters, seed, folder, options)
        seconds.append(took)
        models = transferred(task.kind, weights, parameters, options)
        parts.append(run(models, task, folder, options, seeds=[seed], level="B"))
    results = pd.concat(parts, ignore_index=True)
    notes += against_scratch(results, options)
    notes.append(
        f"Pretraining on {len(source)} scans of {source_name(options)} took "
        f"{np.mean(seconds):.0f} s per seed, not counted in the rows of level B."
    )
    print(report(folder, task, results, options, notes=notes)[1])
    print(f"\nTables, predictions, pictures and weights are in {folder}")


def read_cohorts(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scans to pretrain on, and those to predict."""
    cohort = load_cohort(options.cohort)
    if options.source is not None:
        return load_cohort(options.source), cohort
    column, *values = options.source_rows
    is_source = cohort[column].astype(str).isin(values)
    if is_source.all() or not is_source.any():
        raise ValueError(
            "Transfer needs rows to pretrain on and others to predict. Got "
            f"{is_source.sum()} of {len(cohort)} with {column} in {values}. Name "
            f"values among {sorted(cohort[column].astype(str).unique())}."
        )
    return (
        cohort[is_source].reset_index(drop=True),
        cohort[~is_source].reset_index(drop=True),
    )


def source_name(options: argparse.Namespace) -> str:
    """Return what tables call the source."""
    if options.source is not None:
        return options.source.resolve().name
    return ", ".join(options.source_rows[1:])


def shared_modality(source: pd.DataFrame, cohort: pd.DataFrame) -> str:
    """Return what both cohorts have."""
    shared = [m for m in present(source) if m in present(cohort)]
    if not shared:
        raise ValueError(
            f"Transfer needs a modality that both cohorts have. Got {present(source)} "
            f"and {present(cohort)}."
        )
    return "both" if len(shared) == 2 else shared[0]


def with_people(
    source: pd.DataFrame, task: Task, options: argparse.Namespace
) -> pd.DataFrame:
    """Return the source with its people in `GROUP`, none of whom is in the task."""
    column = options.groups or "participant_id"
    for name, table in (("source", source), ("cohort", task.X)):
        if column not in table:
            raise ValueError(
                f"Transfer needs the column {column!r} in both cohorts, to check that "
                f"nobody is in both. Got none in --{name}."
            )
    people = source[column].astype(str)
    shared = sorted(set(people) & set(task.groups.tolist()))
    if shared:  # compare would refuse it too, after hours of pretraining
        raise ValueError(
            "Transfer needs other people in --source than in --cohort. Got "
            f"{len(shared)} in both, first {shared[0]!r}. Leave them out of one, or "
            "rename those who are not the same."
        )
    return source.assign(**{GROUP: people})


def check_atlas(source: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Raise if the regions of two cohorts differ."""
    advice = (
        "Weights are bound to their regions, and no option moves them to others, "
        "positions='gradient' included. Parcellate one cohort again."
    )
    found = [check_cohort(X, constant_regions="mask") for X in (source, cohort)]
    sizes = [one.n_regions for one in found]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"Transfer needs two cohorts of one atlas. Got {sizes[0]} regions in "
            f"--source and {sizes[1]} in --cohort. {advice}"
        )
    labels = [
        one.regions["label"].astype(str).tolist()
        for one in found
        if one.regions is not None and "label" in one.regions
    ]
    if len(labels) == 2 and labels[0] != labels[1]:
        first = next(
            i for i, pair in enumerate(zip(*labels, strict=True)) if len({*pair}) > 1
        )
        raise ValueError(
            "Transfer needs two cohorts of one atlas. Got other labels in regions.tsv, "
            f"first {labels[0][first]!r} and {labels[1][first]!r} of region {first}. "
            f"{advice}"
        )


def here(
    task: Task, modality: str, parameters: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the models that see nothing but the training rows."""
    classical = [CLASSICAL[m] for m in ("fmri", "sc") if modality in (m, "both")]
    if modality == "both":
        classical.append(CLASSICAL["both"])
    rows: dict[str, Any] = {
        name: make_candidate(name, task.kind, group_column=GROUP)
        for name in ("dummy", *classical)
    }
    rows[SCRATCH] = brainsymphony(
        "BrainSymphony from scratch",
        task.kind,
        options,
        pretraining=False,
        **parameters,
    )
    rows["brainsymphony-finetuned"] = brainsymphony(
        "BrainSymphony pretrained here, fine-tuned", task.kind, options, **parameters
    )
    return rows


def transferred(
    kind: str, weights: Path, parameters: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the models that start from the weights of the source."""
    name = source_name(options)
    words = {"probe": "probed", "finetune": "fine-tuned"}
    return {
        f"transferred-{strategy}": brainsymphony(
            f"BrainSymphony pretrained on {name}, {word}",
            kind,
            options,
            pretraining=False,
            strategy=strategy,
            **parameters,
            pretrained=str(weights),
        )
        for strategy, word in words.items()
    }


def pretrain(
    source: pd.DataFrame,
    parameters: dict[str, Any],
    seed: int,
    folder: Path,
    options: argparse.Namespace,
) -> tuple[Path, float]:
    """Return the weights of the source, made if they are not there, and the seconds."""
    pretrainer = brainsymphony("", "regression", options, **parameters).pretrainer
    embedder = with_seed(pretrainer, seed)
    rows = np.arange(len(source))
    problem = Problem(source, rows * 0.0, source[GROUP].to_numpy(), "regression")
    store = CellStore(folder)
    key = hash_of([problem.fingerprint(), describe(embedder)])
    if store.read(key) is None or not store.weights(key).is_dir():
        name = f"pretraining on {source_name(options)}, seed {seed}"
        cell = Pretraining(key, name, embedder, rows)
        _, error = run_cell(cell, problem, store, current_provenance())
        if error is not None:
            raise RuntimeError(f"{name} failed: {error}")
    record = store.read(key) or {}
    return store.weights(key), float(record["seconds"])


def against_scratch(results: pd.DataFrame, options: argparse.Namespace) -> list[str]:
    """Return sentences on transfer against random weights."""
    rows = results["model"].str.startswith("transferred-") | (
        results["model"] == SCRATCH
    )
    said = conclusions(
        results[rows], metric=options.metric, reference=SCRATCH, rope=options.rope
    )
    verdicts = [sentence for sentence in said[2:] if "degenerate" not in sentence]
    return [f"Against scratch: {sentence}" for sentence in verdicts]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = make_parser(__doc__)
    add = command.add_argument
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--source", type=Path, help="cohort folder to pretrain on")
    source.add_argument(
        "--source-rows",
        nargs="+",
        metavar=("COLUMN", "VALUE"),
        help="rows of --cohort to pretrain on and leave out of the task",
    )
    add(
        "--modality",
        choices=("fmri", "sc", "both"),
        help="default: what both cohorts have",
    )
    add("--t-r", metavar="COLUMN", help="repetition times in seconds, in both cohorts")
    return command


if __name__ == "__main__":
    main()
