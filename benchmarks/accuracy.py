"""Compare the models on every cohort of a data folder, and write the page about it.

    python benchmarks/accuracy.py --data FOLDER --out FOLDER [--only NAME ...]
    python benchmarks/accuracy.py --data FOLDER --out FOLDER --document PAGE.md

Each benchmark is a line of BENCHMARKS. Finished fits are kept in --out, so that the
same command goes on where it was stopped; --document computes nothing and writes the
page from what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from _output import describe, draw, write_results
from _page import OURS, write_page
from _tasks import GROUP, Task, cohort_task, identification_task

from bsym_sklearn import list_models, model_info
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.headline import headline_test
from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.analysis.tables import conclusions, strongest_rival
from bsym_sklearn.data import load_cohort

FLOORS = ("dummy", "amplitude", "correlation", "partial", "tangent")
FLOORS += ("tangent-kernel_ridge",)
HEADLINE = ("mean_mlp", "brainsymphony-streams")
BLENDS = ("mean_mlp-blend", "brainsymphony-blend")  # three seeds are in each
# Networks that need minutes for a fit on two cores: one seed.
OTHERS = ("transformer", "brainnetcnn", "brain_network_transformer", "braingnn")
OTHERS += tuple(
    f"{name}-{row}"
    for name in ("brainlm", "brain_jepa", "brainsymphony")
    for row in ("random", "scratch", "frozen", "finetuned")
)
OTHERS += ("correlation+brainsymphony", "tangent+brainsymphony")
# These learn slowly, and are also trained LONGER times as long: ablations.md, "What the
# rivals gain". (The first two of OTHERS would take hours.)
SLOW = ("brain_network_transformer", "braingnn")
LONGER = 4
SC_FLOORS = ("sc", "correlation+sc", "tangent+sc")


@dataclass(frozen=True)
class Benchmark:
    """What is predicted on which cohort, with what budget."""

    name: str
    cohort: str
    target: str
    window: int  # time points that networks see at once
    max_epochs: int  # of every network that learns from targets
    pretrain_epochs: int = 0
    confounds: tuple[str, ...] = ()
    leave_out: str | None = None
    n_points: int | None = None  # of a window to name a person from
    floors: tuple[str, ...] = FLOORS
    headline: tuple[str, ...] = HEADLINE
    blends: tuple[str, ...] = BLENDS
    others: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()

    def task(self, data: Path) -> Task:
        """Read the cohort and divide it."""
        cohort = load_cohort(data / self.cohort)
        if self.n_points is not None:
            return identification_task(cohort, self.n_points, target=self.target)
        return cohort_task(
            cohort, self.target, leave_out=self.leave_out, confounds=self.confounds
        )


# Budgets were chosen so that everything ends within a night on two cores, by runs
# inside training rows (docs/benchmarks/ablations.md), and are alike for all models;
# SLOW ones have rows with more beside.
BENCHMARKS = (
    Benchmark(
        "multitask-state", "multitask_dev", "state", 60, 40, 20, others=OTHERS,
        slow=SLOW,
    ),
    Benchmark(
        "hcp21-identity", "hcp21", "participant_id", 50, 30, 10, n_points=50,
        others=("brainsymphony-random", "brainsymphony-frozen"),
    ),
    Benchmark("rest3site-site", "rest3site", "site", 120, 30, confounds=("age", "sex")),
    Benchmark(
        "tumor-group", "tumor", "group", 120, 30, floors=(*FLOORS, *SC_FLOORS),
        headline=(*HEADLINE, "brainsymphony-scratch"),
    ),
    Benchmark(
        "abide-dx", "abide_dev", "dx", 120, 15, 5,
        confounds=("site", "sex", "age", "mean_fd"), others=OTHERS, slow=SLOW,
    ),
    Benchmark(
        "abide-age", "abide_dev", "age", 120, 15,
        confounds=("site", "sex", "dx", "mean_fd"),
    ),
    Benchmark(
        "abide-sex", "abide_dev", "sex", 120, 15,
        confounds=("site", "age", "dx", "mean_fd"),
    ),
    Benchmark("abide-dx-sites", "abide_dev", "dx", 120, 15, leave_out="site"),
)  # fmt: skip
SEEDS = (0, 1, 2)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    chosen = [b for b in BENCHMARKS if options.only is None or b.name in options.only]
    if options.document is not None:
        write_page(options.document, options.out, [b.name for b in BENCHMARKS])
        return
    for benchmark in chosen:
        task = benchmark.task(options.data)
        folder = options.out / benchmark.name
        results = run(benchmark, task, folder, options)
        print(report(benchmark, task, folder, results))


def run(
    benchmark: Benchmark, task: Task, folder: Path, options: argparse.Namespace
) -> pd.DataFrame:
    """Compute what is not there yet: three seeds of the headline, one of the rest."""
    possible = set(list_models(task.kind, has=task.has))
    floors = (*benchmark.floors, "confounds") if task.confounds else benchmark.floors
    max_epochs = benchmark.max_epochs
    parts = [
        ((*floors, *benchmark.headline), SEEDS, max_epochs),
        (benchmark.blends, SEEDS[:1], max_epochs),
    ]
    if not options.headline:
        parts.append((benchmark.others, SEEDS[:1], max_epochs))
        parts.append((benchmark.slow, SEEDS[:1], LONGER * max_epochs))
    found = [
        compare(
            {
                _label(name, n_epochs, benchmark): name
                for name in models
                if name in possible
            },
            task.X,
            task.y,
            groups=task.groups,
            cv=task.splits,
            task=task.kind,
            size="small",
            seeds=seeds,
            confounds=task.confounds,
            group_column=GROUP,
            window=benchmark.window,
            max_epochs=n_epochs,
            pretrain_epochs=benchmark.pretrain_epochs,
            store=folder,
            n_jobs=options.n_jobs,
        )
        for models, seeds, n_epochs in parts
        if models
    ]
    return pd.concat(found, ignore_index=True)


def _label(name: str, n_epochs: int, benchmark: Benchmark) -> str:
    """Return what a model is called: by its name, unless it is trained longer."""
    if n_epochs == benchmark.max_epochs:
        return name
    return f"{model_info(name).label}, {n_epochs} epochs"


def report(
    benchmark: Benchmark, task: Task, folder: Path, results: pd.DataFrame
) -> str:
    """Write the tables of one benchmark; return them as text."""
    reference = strongest_rival(summarize(results, n_resamples=0))
    summary = summarize(results, reference=reference)
    settings: dict[str, Any] = describe(task, vars(benchmark))
    settings["metric"] = summary.attrs["metric"]
    ours = next(model for model in OURS if model in set(results["model"]))
    # Windows of a scan keep one person: whole scans are shuffled.
    units = None
    if benchmark.n_points is not None:
        units = task.X["scan"].astype(str) + "-" + task.X["half"].astype(str)
    test = headline_test(results, ours, units=units, random_state=0)
    settings["headline"] = {"model": ours, "p_value": test.p_value}
    text = write_results(
        folder, results, summary, conclusions(results, reference=reference), settings
    )
    draw(folder, summary)
    return text


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--data", type=Path, required=True, help="folder of cohort folders")
    add("--out", type=Path, required=True, help="folder for results")
    add("--only", nargs="+", choices=[b.name for b in BENCHMARKS])
    add("--headline", action="store_true", help="without what takes longest")
    add("--n-jobs", type=int, default=2, help="fits side by side, one thread each")
    add("--document", type=Path, help="page to write from the results in --out")
    return command


if __name__ == "__main__":
    main()
