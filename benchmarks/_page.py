"""The page about accuracy, from the tables of finished benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bsym_sklearn.analysis.results import score_matrix
from bsym_sklearn.analysis.scores import LOWER_IS_BETTER
from bsym_sklearn.analysis.statistics import corrected_t_test, critical_difference
from bsym_sklearn.analysis.tables import format_p, printed
from bsym_sklearn.files import write_atomically
from bsym_sklearn.plotting import plot_critical_differences

# What speaks for BrainSymphony, fixed before the runs: the first that was computed.
OURS = ("brainsymphony-blend", "brainsymphony-streams")
GROUPS = {
    "best classical row": ("floor", "classical"),
    "best rival network": ("network", "foundation"),
}
MIN_ROWS, MIN_MODELS = 2, 3
HEAD = """\
# Accuracy

Written by `benchmarks/accuracy.py` from the runs that it names; no result is typed by
hand. The cohorts stay outside the repository. Mean ± standard deviation over the
test folds, seeds averaged within a fold first (a blend has three seeds of its networks
inside, and is fitted once per fold); intervals and tests are corrected for overlapping
training rows (Nadeau and Bengio). An interval of a score may exceed its range, as that
of a t test does. Seconds are of fits side by side, some beside other work of the
machine: an order of magnitude. Memory is of the whole process, with Python, libraries,
scans and what it computed before: it bounds that of a model from above.

## Who wins

For BrainSymphony stands one row, whatever wins: the blend of its streams with tangent
connectivity (on hcp21, tumor and the left-out sites it was added after the streams had
been seen). The best row of each other kind is chosen by its score in these very folds,
in its favour. p is that of the corrected t test, not adjusted for the benchmarks. The
last column is BrainSymphony's p against shuffled targets (1000 shuffles, of people, or
of the scans of a person; of whole scans where people are named from windows).

What the streams and the blends are made of was chosen on training rows of the first of
five folds, for abide_dev and, in part on all ten people, for multitask_dev
([what was tried](ablations.md)). Those people are tested in the other folds, and these
test folds were run once before, with older defaults: scores of BrainSymphony and of
meanMLP on these two cohorts, whose settings were tried side by side, may flatter both
a little. Linear models choose their penalty in each fold. Nothing was chosen on the
other cohorts.

All networks get the same epochs, as many as two cores can give. Two that learn slowly,
the Brain Network Transformer and BrainGNN, also have rows with four times as many. The
transformer, BrainNetCNN, BrainLM and Brain-JEPA, for which that takes hours, have not:
they are below what more training, data or size would give. Popov et al. (2024,
doi 10.1016/j.neuroimage.2024.120909), with 869 people of ABIDE and two atlases, have
AUROCs of .744 and .745 for meanMLP, .732 and .707 for the Brain Network Transformer,
.720 and .678 for BrainNetCNN, .612 and .534 for a transformer, .713 and .722 for a
linear model on correlation.

"""


def write_page(page: Path, results: Path, names: Sequence[str]) -> None:
    """Write a summary, a picture and one section per finished benchmark."""
    cells, chance, sections = {}, {}, []
    for name in names:
        folder = results / name
        if not (folder / "table.md").exists():
            continue
        settings = json.loads((folder / "settings.json").read_text())
        fits = pd.read_csv(folder / "cells.csv", dtype={"commit": str})
        cells[name] = (fits, settings["metric"])
        commits = sorted({str(commit)[:7] for commit in fits["commit"]})
        table = (folder / "table.md").read_text()
        chance[name] = settings["headline"]["p_value"]
        sections.append(_section(name, settings, commits, table))
    parts = [HEAD, _winners(cells, chance), "", _ranks(page, cells), *sections]
    write_atomically(page, "\n".join(parts))


def _winners(
    cells: dict[str, tuple[pd.DataFrame, str]], chance: dict[str, float]
) -> str:
    """Return the table of the best rows of each kind."""
    lines = [["benchmark", "score", "BrainSymphony", *GROUPS, "against the best"]]
    lines[0].append("against chance")
    lines.append(["---"] * len(lines[0]))
    for name, (table, metric) in cells.items():
        scores = score_matrix(table, metric)
        better = -scores if metric in LOWER_IS_BETTER else scores
        labels = table.drop_duplicates("label").set_index("model")["label"]
        families = table.drop_duplicates("label").set_index("label")["family"]
        ours = next(labels[model] for model in OURS if model in labels)
        best = {
            kind: better[families.index[families.isin(group)]].mean().idxmax()
            for kind, group in GROUPS.items()
        }
        rival = better[list(best.values())].mean().idxmax()
        verdict = _verdict(better[[ours, rival]].dropna(), table["test_fraction"])
        found = [f"{_score(scores, label)} {label}" for label in best.values()]
        row = [name, printed(metric), _score(scores, ours), *found, verdict]
        lines.append([*row, f"p {format_p(chance[name])}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(pair: pd.DataFrame, fractions: pd.Series) -> str:
    """Return the difference of two models over the splits that have a score."""
    if len(pair) < MIN_ROWS:
        return "too few splits"
    test = corrected_t_test(
        pair.iloc[:, 0], pair.iloc[:, 1], test_fraction=float(fractions.mean())
    )
    return (
        f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}], "
        f"p {format_p(test.p_value)}"
    )


def _score(scores: pd.DataFrame, label: str) -> str:
    """Return mean and spread over the splits."""
    return f"{scores[label].mean():.3f} ± {scores[label].std():.3f}"


def _ranks(page: Path, cells: dict[str, tuple[pd.DataFrame, str]]) -> str:
    """Draw the mean ranks of the models that all benchmarks have; say what they are."""
    rows = {}
    for name, (table, metric) in cells.items():
        sign = -1 if metric in LOWER_IS_BETTER else 1
        rows[name] = sign * score_matrix(table, metric).mean()
    scores = pd.DataFrame(rows).T.dropna(axis=1)
    if len(scores) < MIN_ROWS or scores.shape[1] < MIN_MODELS:
        return ""
    ranks = critical_difference(scores)
    ax = plot_critical_differences(ranks)
    ax.figure.savefig(page.with_suffix(".png"), dpi=200, bbox_inches="tight")
    return (
        f"![Mean rank of each model over the benchmarks]({page.stem}.png)\n\n"
        f"Mean ranks over {len(scores)} benchmarks of the models that all of them "
        "have; a bar joins those that do not differ (Friedman p "
        f"{format_p(ranks.p_value)}; Nemenyi, critical difference "
        f"{ranks.difference:.2f}). Benchmarks of one cohort share people, so that this "
        "is a picture more than a test.\n"
    )


def _people(settings: dict[str, Any]) -> str:
    """Return how many scans and groups there are."""
    n_scans, n_groups = settings["n_scans"], settings["n_groups"]
    if settings["options"]["n_points"] is None:
        return f"{n_scans} scans of {n_groups} people"
    return f"{n_scans} windows in {n_groups} halves of the scans"


def _section(
    name: str, settings: dict[str, Any], commits: Sequence[str], table: str
) -> str:
    """Return the section of one benchmark."""
    options = settings["options"]
    lines = [
        f"## {name}",
        "",
        f"`python benchmarks/accuracy.py --only {name}`: {_people(settings)}, "
        f"{len(settings['splits'])} splits; networks see windows of "
        f"{options['window']} time points, at most {options['max_epochs']} epochs with "
        f"targets and {options['pretrain_epochs']} without; fits of "
        f"{', '.join(commits)}.",
        "",
        table,
    ]
    return "\n".join(lines)
