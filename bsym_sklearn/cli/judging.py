"""From options to the cells of a comparison; what `compare` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.command import TrainingError, progress
from bsym_sklearn.cli.files import Source, check_columns
from bsym_sklearn.cli.options import Judging
from bsym_sklearn.cli.settings import did_you_mean
from bsym_sklearn.exceptions import BrainDataError, CheckpointError

if TYPE_CHECKING:
    import pandas as pd

    from bsym_sklearn.analysis.cohort_task import Task


def read_task(
    source: Source,
    judging: Judging,
    *,
    leave_out: str | None = None,
    external: Path | None = None,
) -> Task:
    """Read a cohort and say what is to be predicted.

    Parameters
    ----------
    source : Source
        Where the scans are.
    judging : Judging
        What is predicted.
    leave_out : str or None, default=None
        Column of which each value is tested in turn.
    external : Path or None, default=None
        Another cohort, which is the only test.

    Returns
    -------
    Task

    Raises
    ------
    click.UsageError
        If no target is named, or a column is not there.
    BrainDataError
        If no scan has the target.
    """
    from bsym_sklearn.analysis.cohort_task import cohort_task

    if judging.target is None:
        raise click.UsageError("Missing option '--target'.")
    X = source.open()
    check_task_columns(X, source, judging, leave_out=leave_out)
    other = None
    if external is not None:
        other = Source(external).open()
        check_task_columns(other, Source(external), judging)
    return cohort_task(
        X,
        judging.target,
        groups=judging.groups,
        kind=judging.task,
        n_folds=judging.folds,
        n_repeats=judging.repeats,
        leave_out=leave_out,
        external=other,
        confounds=judging.confounds,
    )


def check_task_columns(
    X: pd.DataFrame,
    source: Source,
    judging: Judging,
    *,
    leave_out: str | None = None,
) -> None:
    """Raise unless a cohort has all columns that are named, and targets.

    Raises
    ------
    click.BadParameter
        If a column is not there.
    BrainDataError
        If no scan has the target.
    """
    check_columns(
        X, source, target=judging.target, groups=judging.groups, leave_out=leave_out
    )
    for column in judging.confounds:
        check_columns(X, source, confounds=column)
    if not X[judging.target].notna().any():
        raise BrainDataError(
            f"bsym needs scans with a target. Got none in the column "
            f"{judging.target!r} of {source.name}. Fill it in, or name another."
        )


def check_model_names(names: Sequence[str], task: Task, *, option: str) -> None:
    """Raise if a model is not known, or not for this target and these scans.

    Parameters
    ----------
    names : sequence of str
        As they were given.
    task : Task
        What is predicted from what.
    option : str
        That took them.

    Raises
    ------
    click.BadParameter
        With the nearest name, or what the model needs.
    """
    from bsym_sklearn import list_models, model_info

    known = list_models(task.kind, has=("fmri", "sc", "confounds"))
    fitting = list_models(task.kind, has=task.has)
    for name in names:
        problem = None
        if name not in known:
            problem = f"There is no model {name!r} of {task.kind}. "
            problem += did_you_mean(name, known)
            problem += " bsym compare --list-models lists all."
        elif name not in fitting:
            needs = " and ".join(model_info(name).needs)
            problem = f"The model {name!r} needs {needs}; there is only "
            problem += f"{' and '.join(task.has)}."
        if problem is not None:
            raise click.BadParameter(problem, param_hint=option)


def run_comparison(
    models: Sequence[str] | Mapping[str, Any],
    task: Task,
    judging: Judging,
    *,
    level: str,
    store: Path | None,
    n_trials: int = 0,
) -> pd.DataFrame:
    """Compute all cells that are not in the store.

    Parameters
    ----------
    models : list of str, or mapping of str to estimator or str
        See :func:`~bsym_sklearn.analysis.comparison.compare`.
    task : Task
        What is predicted from what.
    judging : Judging
        How.
    level : {"A", "B", "C"}
        What pretraining may have seen.
    store : Path or None
        Folder of finished cells.
    n_trials : int, default=0
        Of a search.

    Returns
    -------
    DataFrame
        One row per cell.

    Raises
    ------
    TrainingError
        If models failed, after all others were finished.
    """
    from bsym_sklearn.analysis.cohort_task import GROUP
    from bsym_sklearn.analysis.comparison import compare

    try:
        return compare(
            models,
            task.X,
            task.y,
            groups=task.groups,
            cv=task.splits,
            task=task.kind,
            size=judging.size,
            seeds=judging.seeds,
            level=level,
            confounds=task.confounds,
            group_column=GROUP,
            window=judging.window,
            batch_size=judging.batch_size,
            max_epochs=judging.epochs,
            pretrain_epochs=judging.pretrain_epochs,
            n_trials=n_trials,
            store=store,
            n_jobs=judging.n_jobs,
            verbose=progress(),
        )
    except CheckpointError:
        raise
    except RuntimeError as error:  # the only other one that compare raises itself
        raise TrainingError(str(error)) from error
