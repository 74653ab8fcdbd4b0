"""Ablations: BrainSymphony with one change at a time, against itself without it.

    python benchmarks/ablations.py --cohort FOLDER --target COLUMN --size small

Each change sets one or two parameters of the base: a stream taken out of the head or
read alone, no blocks in the Perceiver, equal weights in place of the gate, one
modality, other tokens, and every repair back to what the released code does
("reference"). Pretraining has the same change, and is done on the training rows of a
fold. `difference` in the table is to the base, by the corrected test, with Holm's
adjustment over all changes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from _runs import (
    brainsymphony,
    make_parser,
    output_folder,
    present,
    read_complete_task,
    report,
    run,
)

from bsym_sklearn import Candidate
from bsym_sklearn.data import load_cohort

BASE = "base"
# What the head may read of a modality, beside what is fused.
STREAMS = {"fmri": ("spatial", "states"), "sc": ("structural",)}
TOKENS: dict[str, dict[str, Any]] = {
    "spatial tokens of the series": {"spatial_tokens": "series"},
    "spatial tokens of both": {"spatial_tokens": "both"},
    "linear temporal tokens": {"temporal_tokens": "linear"},
    "temporal kernel 5": {"temporal_kernel": 5},
}
# Repairs by the modality that they concern; the value takes each back.
REPAIRS = {
    "perceiver_residual": "fmri",
    "decoder": "fmri",
    "final_norm": "fmri",
    "signed_attention": "sc",
    "absent_edges": "sc",
    "edge_symmetry": "sc",
}
# These decode what was hidden: without pretraining they do nothing.
ONLY_PRETRAINING = ("decoder", "edge_symmetry")


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    has = present(load_cohort(options.cohort))
    task, notes = read_complete_task(options, has)
    found = changes(has, scratch=options.scratch)
    if options.only:
        found = {name: found[name] for name in checked(options.only, found)}
    models = {BASE: model(BASE, {}, task.kind, options)}
    for name, change in found.items():
        models[name] = model(name, change, task.kind, options)
    folder = output_folder(options, "ablations")
    results = run(models, task, folder, options)
    if options.scratch:
        notes.append(
            f"Without pretraining, {' and '.join(ONLY_PRETRAINING)} change nothing and "
            "are left out."
        )
    print(report(folder, task, results, options, reference=BASE, notes=notes)[1])
    print(f"\nTables, predictions, pictures and settings are in {folder}")


def changes(has: Sequence[str], *, scratch: bool = False) -> dict[str, dict[str, Any]]:
    """Return the parameters of each change that a cohort allows, by its name."""
    found: dict[str, dict[str, Any]] = readouts(has)
    if "fmri" in has:
        found["no Perceiver blocks"] = {"perceiver_depth": 0}
    if len(has) > 1:
        found["no gate"] = {"fusion": "mean"}
        found |= {f"{m} only": {"modalities": m} for m in has}
    if "fmri" in has:
        found |= TOKENS
    for name, modality in REPAIRS.items():
        if modality in has and not (scratch and name in ONLY_PRETRAINING):
            found[f"{name} as released"] = {name: "reference"}
    return found


def readouts(has: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the heads that lack one stream, or read one alone."""
    streams = [stream for modality in has for stream in STREAMS[modality]]
    every = [*streams, "fused"]
    heads = {f"without {s}": [x for x in every if x != s] for s in every}
    heads |= {f"{s} alone": [s] for s in every}
    return {
        name: {"readouts": "+".join(head)}
        for name, head in heads.items()
        if all({*STREAMS[m], "fused"} & {*head} for m in has)
    }


def model(
    name: str, change: dict[str, Any], kind: str, options: argparse.Namespace
) -> Candidate:
    """Return the base with a change."""
    return brainsymphony(name, kind, options, pretraining=not options.scratch, **change)


def checked(names: Sequence[str], known: dict[str, Any]) -> Sequence[str]:
    """Return the names, or raise with what there is."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--only needs some of {list(known)}. Got {unknown}.")
    return names


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = make_parser(__doc__)
    add = command.add_argument
    add("--only", nargs="+", metavar="CHANGE", help="default: all that apply")
    add("--scratch", action="store_true", help="without pretraining")
    return command


if __name__ == "__main__":
    main()
