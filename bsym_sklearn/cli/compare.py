"""``bsym compare``: models side by side on the same splits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.command import (
    CONTEXT_SETTINGS,
    MODELS,
    Command,
    FiniteRange,
    common_options,
    option,
    put,
    save_settings,
    say,
)
from bsym_sklearn.cli.files import Source
from bsym_sklearn.cli.judging import check_model_names, read_task, run_comparison
from bsym_sklearn.cli.options import Judging, with_cohort, with_judging

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "settings.toml"
OWN = (SETTINGS, "cells")  # what marks a folder of an earlier comparison
EXAMPLES = """
bsym compare --list-models
bsym compare cohort/ --target sex --out results/ --models dummy tangent mean_mlp
bsym compare cohort/ --target age --out results/ --confounds sex site --folds 10
bsym compare cohort/ --target sex --out results/ --leave-out site --seeds 0 1 2
bsym compare cohort/ --target sex --out results/ --external other_cohort/
bsym compare --config results/settings.toml --n-jobs 8
"""


def _list_models(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the models and leave."""
    if value:
        from bsym_sklearn import list_models, model_info

        rows = [("name", "needs", "what it is")]
        for name in dict.fromkeys([*list_models(), *list_models("regression")]):
            info = model_info(name)
            rows.append((name, " ".join(info.needs) or "-", info.label))
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        for name, needs, label in rows:
            put(f"{name:{widths[0]}}  {needs:{widths[1]}}  {label}")
        ctx.exit()


@click.command(cls=Command, epilog=EXAMPLES, context_settings=CONTEXT_SETTINGS)
@with_cohort
@option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for tables and finished fits, from which the same command goes on.",
)
@option(
    "--models",
    many=True,
    metavar="NAME...",
    help="By name.  [default: all that apply]",
)
@option(
    "--list-models",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_models,
    help="Print the names of all models, and leave.",
)
@with_judging
@option(
    "--leave-out",
    metavar="COLUMN",
    help="Test on each of its values in turn, in place of folds.",
)
@option(
    "--external",
    type=click.Path(exists=True, path_type=Path),
    metavar="COHORT2",
    help="Learn from all of COHORT and test on this one, in place of folds.",
)
@option(
    "--level",
    type=click.Choice(["A", "C"]),
    default="A",
    help="What pretraining sees: A, training rows; C, test rows too, without targets.",
)
@option(
    "--n-trials",
    section=MODELS,
    type=click.IntRange(min=0),
    default=0,
    help="Of a search within the training rows, for every model that has a space.",
)
@option(
    "--reference",
    metavar="NAME",
    help="Model to beat.  [default: the best classical one]",
)
@option("--metric", help="To test by.  [default: AUROC, accuracy or R2]")
@option(
    "--rope",
    type=FiniteRange(min=0),
    default=0.01,
    help="A difference that is practically none.",
)
@common_options
def compare(
    source: Source,
    judging: Judging,
    out: Path,
    models: tuple[str, ...],
    leave_out: str | None,
    external: Path | None,
    level: str,
    n_trials: int,
    reference: str | None,
    metric: str | None,
    rope: float,
) -> None:
    """Cross-validate models side by side.

    Differences are tested, with the best classical model as the one to beat. Every
    model gets the same scans, splits and seeds, and nobody is on both sides of a
    split. The table is printed on stdout. OUT gets it as table.txt, .md, .tex and .csv,
    with cells.csv, predictions.csv, forest.png (if matplotlib is there), settings.toml,
    and the finished fits: a command that was stopped, or has more --models, computes
    only what is missing.
    """
    from bsym_sklearn import list_models
    from bsym_sklearn.analysis.result_files import write_results
    from bsym_sklearn.analysis.results import summarize
    from bsym_sklearn.analysis.tables import conclusions, strongest_rival

    _check_folder(out)
    task = read_task(source, judging, leave_out=leave_out, external=external)
    names = list(models) or list_models(task.kind, has=task.has)
    check_model_names(names, task, option="--models")
    if reference is not None:
        check_model_names([reference], task, option="--reference")
    save_settings(out / SETTINGS)
    results = run_comparison(
        names, task, judging, level=level, store=out, n_trials=n_trials
    )
    best = reference or strongest_rival(
        summarize(results, metric=metric, n_resamples=0)
    )
    tests: dict[str, Any] = {"metric": metric, "reference": best, "rope": rope}
    tests["n_resamples"] = judging.n_resamples
    notes, summary = conclusions(results, **tests), summarize(results, **tests)
    put(write_results(out, results, summary, notes, task.name))
    _draw(out, summary)
    say(f"Tables, predictions and settings are in {out}")


def _check_folder(out: Path) -> None:
    """Raise if a folder holds something else than a comparison."""
    if out.is_dir():
        names = {path.name for path in out.iterdir()}
        if names and not names.intersection(OWN):
            raise click.BadParameter(
                f"'{out}' holds something else than a comparison. Name a new folder.",
                param_hint="--out",
            )


def _draw(out: Path, summary: pd.DataFrame) -> None:
    """Draw the intervals, where there is something to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        say("There is no forest.png, which needs matplotlib.")
        return
    import matplotlib.pyplot as plt

    from bsym_sklearn.plotting import plot_forest

    plot_forest(summary)
    plt.savefig(out / "forest.png", dpi=200)
    plt.close()
