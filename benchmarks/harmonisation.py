"""What harmonisation inside the training rows does, on any cohort with sites.

    python benchmarks/harmonisation.py --cohort FOLDER --target COLUMN [--site COLUMN]

Connectivity with a linear model, as it is, after ComBat, and after regressing confounds
out. With the site as the target (the default) a score near chance says that the sites
can no longer be told apart; ComBat is then handed the site of test scans too, as in any
use of it. With another target, add --leave-out-sites to see new sites, whose scans
ComBat treats as those of an average one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _output import describe, draw, write_results
from _tasks import GROUP, cohort_task

from bsym_sklearn import ConnectivityFeatures, FeatureClassifier, FeatureRegressor
from bsym_sklearn.analysis.combat import ComBat
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.confounds import AdjustedTransformer, ConfoundRegressor
from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.analysis.tables import conclusions
from bsym_sklearn.data import load_cohort

SITE = "harmonised_site"  # a copy of the site, which may be the target itself
KINDS = ("correlation", "tangent")


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    target = options.target or options.site
    cohort = load_cohort(options.cohort)
    cohort[SITE] = cohort[options.site].astype(str)
    task = cohort_task(
        cohort,
        target,
        n_folds=options.folds,
        leave_out=options.site if options.leave_out_sites else None,
        confounds=options.confounds,
    )
    results = compare(
        models(task.kind, options.confounds),
        task.X,
        task.y,
        groups=task.groups,
        cv=task.splits,
        task=task.kind,
        group_column=GROUP,
        store=options.out,
        n_jobs=options.n_jobs,
    )
    summary = summarize(results, reference=KINDS[0])
    notes = conclusions(results, reference=KINDS[0])
    settings = describe(task, vars(options))
    print(write_results(options.out, results, summary, notes, settings))
    draw(options.out, summary)


def models(kind: str, confounds: Sequence[str]) -> dict[str, Any]:
    """Return linear models of connectivity, adjusted in every way."""
    linear = {"classification": FeatureClassifier, "regression": FeatureRegressor}[kind]
    adjustments: dict[str, tuple[Any, dict[str, Any]] | None] = {
        "": None,
        ", ComBat": (ComBat(unseen_sites="pooled"), {"sites": SITE}),
    }
    if confounds:
        columns = {"confounds": list(confounds)}
        adjustments[", confounds regressed out"] = (
            ConfoundRegressor(unseen="pooled"),
            columns,
        )
    made = {}
    for name in KINDS:
        for label, adjustment in adjustments.items():
            features: Any = ConnectivityFeatures(name)
            if adjustment is not None:
                features = AdjustedTransformer(features, *adjustment)
            made[f"{name}{label}"] = linear(features, group_column=GROUP)
    return made


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--cohort", type=Path, required=True, help="folder with participants.tsv")
    add("--target", help="column to predict (default: the site)")
    add("--site", default="site", help="column of the site")
    add("--confounds", nargs="+", default=[], metavar="COLUMN")
    add("--leave-out-sites", action="store_true", help="test on each site in turn")
    add("--folds", type=int, default=5)
    add("--out", type=Path, required=True, help="folder for results")
    add("--n-jobs", type=int, default=2)
    return command


if __name__ == "__main__":
    main()
