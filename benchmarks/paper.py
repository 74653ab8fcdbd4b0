"""Sex and age as in the paper: fMRI, connectome or both, probed or fine-tuned.

    python benchmarks/paper.py --cohort FOLDER --target sex age

The rows of the paper's Figure 2, and linear models of the same scans that it does not
have. Everything is pretrained on the training rows of a fold. `figure2.md` has the
layout of the figure with the printed numbers beside those measured; `beside.csv`, for
each target, all that papers print. Targets that the paper calls otherwise:

    python benchmarks/paper.py --cohort FOLDER --target Gender Age_in_Yrs \
        --printed sex age
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from _curves import as_markdown
from _paper import beside, paper_rows
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

from bsym_sklearn import make_candidate, model_info
from bsym_sklearn.data import load_cohort
from bsym_sklearn.files import write_atomically

COHORT = "HCP-Aging"  # of the printed numbers
NAMES = {"fmri": "fmri", "sc": "sc", "both": "fmri+sc"}  # as the paper's file has them
PROTOCOLS = {"probe": "linear probe", "finetune": "fine-tuned"}
# What is printed, and what is measured beside it: the definitions of the printed F1 and
# correlation are not known, and 1 - R2 is an error in units of the target's variance.
SCORES = {
    "classification": {"accuracy": ["accuracy"], "f1_as_printed": ["f1"]},
    "regression": {
        "mse_as_printed": ["1 - r2"],
        "rho_as_printed": ["pearson", "spearman"],
    },
}
CAVEAT = (
    f"The printed numbers are of other people, other scans and other splits ({COHORT}, "
    "without spread): they do not rank the rows that were measured here."
)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    names = printed_names(options)
    cohort = load_cohort(options.cohort)
    modalities = options.modalities or default_modalities(cohort)
    needs = (
        ("fmri", "sc") if "both" in modalities or len(modalities) > 1 else modalities
    )
    folder = output_folder(options, "paper")
    figure = []
    for target, name in zip(options.target, names, strict=True):
        task, notes = complete_task(cohort, target, needs, options)
        models = make_models(task.kind, modalities, options)
        results = run(models, task, folder / target, options)
        if name is not None:
            notes.append(CAVEAT)
        summary, text = report(folder / target, task, results, options, notes=notes)
        print(text, end="\n\n")
        if name is not None:
            here = options.cohort.resolve().name
            table = beside(summary, name, measured_on=here, cohort=COHORT)
            table.to_csv(folder / target / "beside.csv")
        figure.append(figure_columns(summary, task, name, modalities))
    write_figure(pd.concat(figure, axis=1), folder)
    print(f"\nTables, predictions and pictures are in {folder}")


def write_figure(layout: pd.DataFrame, folder: Path) -> None:
    """Write the layout of the figure, and print it."""
    layout.to_csv(folder / "figure2.csv")
    text = layout.map(_three_digits)
    print(text.to_string(), CAVEAT, sep="\n\n")
    write_atomically(folder / "figure2.md", f"{as_markdown(text)}\n{CAVEAT}\n")


def printed_names(options: argparse.Namespace) -> list[str | None]:
    """Return what the paper calls each target, None for one that it has not."""
    known = {"sex", "age"}
    if options.printed is None:
        return [t.lower() if t.lower() in known else None for t in options.target]
    wrong = set(options.printed) - known
    if wrong or len(options.printed) != len(options.target):
        raise ValueError(
            f"--printed needs one of {sorted(known)} for each of {options.target}. Got "
            f"{options.printed}."
        )
    return list(options.printed)


def default_modalities(cohort: pd.DataFrame) -> list[str]:
    """Return what a cohort allows, fusion last."""
    has = present(cohort)
    return [*has, "both"] if len(has) > 1 else list(has)


def make_models(
    kind: str, modalities: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Return chance, a linear model and BrainSymphony twice per modality."""
    models: dict[str, Any] = {"dummy": make_candidate("dummy", kind)}
    for modality in modalities:
        models[CLASSICAL[modality]] = make_candidate(
            CLASSICAL[modality], kind, group_column=GROUP
        )
        for strategy, protocol in PROTOCOLS.items():
            models[f"{modality}-{strategy}"] = brainsymphony(
                f"BrainSymphony {NAMES[modality]}, {protocol}",
                kind,
                options,
                modalities=modality,
                strategy=strategy,
            )
    return models


def rows_of_figure(modalities: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the label of each modality and protocol."""
    rows = {("none", "chance"): model_info("dummy").label}
    for modality in modalities:
        there = NAMES[modality]
        rows[there, "classical"] = model_info(CLASSICAL[modality]).label
        for protocol in PROTOCOLS.values():
            rows[there, protocol] = f"BrainSymphony {there}, {protocol}"
    return rows


def figure_columns(
    summary: pd.DataFrame, task: Task, name: str | None, modalities: Sequence[str]
) -> pd.DataFrame:
    """Return the columns of one target: rows are modalities and protocols."""
    rows = rows_of_figure(modalities)
    measured = summary.loc[list(rows.values())]
    if task.kind == "regression":
        measured = measured.assign(**{"1 - r2": 1 - measured["r2"]})
    index = pd.MultiIndex.from_tuples(list(rows), names=["modality", "protocol"])
    columns = {}
    for as_printed, scores in SCORES[task.kind].items():
        for score in scores:
            columns[f"{task.name}: {score}"] = measured[score].set_axis(index)
        if name is not None and as_printed in paper_rows(name, cohort=COHORT):
            paper = paper_rows(name, cohort=COHORT).loc[["BrainSymphony"]]
            there = paper.groupby(["modality", "protocol"])[as_printed].first()
            head = f"{task.name}: printed {as_printed.removesuffix('_as_printed')}"
            columns[head] = there.reindex(index)
    return pd.DataFrame(columns)


def _three_digits(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = make_parser(__doc__, several_targets=True)
    command.add_argument(
        "--modalities",
        nargs="+",
        choices=tuple(NAMES),
        help="default: what the cohort has",
    )
    command.add_argument(
        "--printed",
        nargs="+",
        metavar="NAME",
        help="what the paper calls the targets (default: the same)",
    )
    return command


if __name__ == "__main__":
    main()
