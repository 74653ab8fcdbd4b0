"""A search that many processes share, that can be stopped, and that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.metrics import get_scorer
from sklearn.utils import check_scalar

from bsym_sklearn.analysis.identity import describe, hash_of
from bsym_sklearn.analysis.problem import Problem, make_problem
from bsym_sklearn.analysis.splits import Split
from bsym_sklearn.analysis.tuning import Scorer, default_scoring, require_optuna
from bsym_sklearn.estimators.registry import make_model
from bsym_sklearn.estimators.search_spaces import search_space
from bsym_sklearn.model.layers import check_choice

POLL_SECONDS = 0.5  # between two looks at what other processes finished
NAME_LENGTH = 12  # hexadecimal digits


class Optimized(NamedTuple):
    """Result of :func:`optimize`.

    Parameters
    ----------
    params : dict of str to value
        For ``estimator.set_params``.
    score : float
        Mean over the splits; higher is better. Optimistic, being the best of many.
    trials : DataFrame of shape (n_trials, n_params + 4)
        Finished trials of all processes, by number: the parameters, ``score`` (NaN if
        it was pruned or could not be had), ``n_folds`` that were scored, ``seconds``
        and ``error`` (empty if there was none).
    study_name : str
        In the storage.
    best_estimator : estimator or None
        Fitted on all rows with `params`; None unless `refit`.
    """

    params: dict[str, Any]
    score: float
    trials: pd.DataFrame
    study_name: str
    best_estimator: Any = None


def optimize(
    model: Any,
    X: Any,
    y: ArrayLike,
    *,
    space: Mapping[str, Any] | None = None,
    cv: Any = 5,
    groups: ArrayLike | None = None,
    group_column: str = "participant_id",
    task: str = "auto",
    size: str | None = "small",
    n_trials: int = 20,
    timeout: float | None = None,
    storage: Any = None,
    study_name: str | None = None,
    scoring: str | Scorer | None = None,
    pruner: Any = "median",
    seed: int = 0,
    n_jobs: int | None = 1,
    refit: bool = False,
) -> Optimized:
    """Search the parameters of a model, alone or with other processes.

    Every process that makes the same call with the same `storage` works on the same
    study until it has `n_trials` trials; then all return the same. The same call made
    again goes on where the last one stopped. If a process is killed, the others repeat
    the trial that it was at. A trial whose first splits score less than the median of
    the trials before is not computed to the end.

    Parameters
    ----------
    model : str or estimator
        Name of :func:`~bsym_sklearn.estimators.registry.list_models`, or an unfitted
        estimator, which is not changed. The first trial has the parameters that it
        comes with, if `space` has them.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`. Training rows only: the scores of
        a test set must not be searched.
    y : array-like of shape (n_scans,)
        Target, one value per scan.
    space : mapping of str to optuna distribution, or None, default=None
        By names that ``estimator.set_params`` takes. None is that of
        :func:`~bsym_sklearn.estimators.search_spaces.search_space` for a name.
    cv, groups, group_column, task
        Splits; see :func:`~bsym_sklearn.analysis.comparison.compare`.
    size : {"small", "base", "large"} or None, default="small"
        Of a model by name.
    n_trials : int, default=20
        Trials of all processes together, those of earlier calls too.
    timeout : float or None, default=None
        Seconds after which this process begins no further trial, at least 0.
    storage : str, Path, optuna storage or None, default=None
        Where trials are kept: the file of a journal, which may be on a network; the
        address of a database (``"sqlite:///search.db"``); or None, in memory.
    study_name : str or None, default=None
        In the storage. None makes it of the problem, so that a storage can hold any
        number of problems.
    scoring : str, callable or None, default=None
        Name of a scorer of scikit-learn or ``scoring(fitted, X, y)``, higher is better.
        None takes :func:`~bsym_sklearn.analysis.tuning.log_likelihood` for a classifier
        and the negative mean squared error otherwise.
    pruner : {"median"}, optuna pruner or None, default="median"
        Is told the mean of the scores so far after each split. None computes every
        trial to the end.
    seed : int, default=0
        Of the trials and of a model by name.
    n_jobs : int or None, default=1
        Splits of a trial at a time; None is as :func:`joblib.parallel_config` says. The
        trials do not depend on it.
    refit : bool, default=False
        Whether to fit the best parameters to all rows.

    Returns
    -------
    Optimized

    Raises
    ------
    BrainDataError
        If scans or targets cannot be used.
    ValueError
        If there is nothing to search, a participant is on both sides of a split, no
        trial could be fitted, or a study of that name is of another problem.
    ImportError
        If optuna is not installed.

    Notes
    -----
    Processes that wait for the last trials of others do nothing else, and take them
    over if the others die: at once if they ran on the same machine, else after five
    minutes without a sign of life, by clocks that must not differ by more.
    Parameters that were at work when two processes died count as a bad trial.

    A process alone draws the same trials whether or not it was interrupted. What
    several draw depends on which of them finishes first.

    References
    ----------
    .. [1] Akiba et al. (2019). Optuna: a next-generation hyperparameter optimization
       framework. KDD.

    Examples
    --------
    >>> import numpy as np
    >>> from optuna.distributions import FloatDistribution
    >>> from sklearn.linear_model import Ridge
    >>> X, y = np.arange(12.0).reshape(-1, 1), np.arange(12.0)
    >>> space = {"alpha": FloatDistribution(1e-3, 1e3, log=True)}
    >>> found = optimize(Ridge(), X, y, space=space, cv=2, n_trials=8)
    >>> found.params["alpha"] < 1, len(found.trials)
    (True, 8)
    """
    check_scalar(n_trials, "n_trials", int, min_val=1)
    if timeout is not None:
        check_scalar(timeout, "timeout", (int, float), min_val=0)
    problem, splits = make_problem(
        X, y, groups, task=task, cv=cv, seed=seed, group_column=group_column
    )
    estimator, space = _as_estimator(
        model, space, problem.task, size=size, group_column=group_column, seed=seed
    )
    score = _as_scorer(scoring, estimator)
    require_optuna()
    from bsym_sklearn.analysis.studies import TrialSeeds, open_study, present_values
    from bsym_sklearn.analysis.trials import best_of, run_trial, trials_table

    parts = None
    if storage is not None:
        parts = _identity(problem, splits, estimator, space, score)
        label = model if isinstance(model, str) else type(model).__name__
        study_name = study_name or f"{label}-{hash_of(parts)[:NAME_LENGTH]}"
    study = open_study(
        study_name,
        storage,
        sampler=TrialSeeds(seed),
        pruner=_as_pruner(pruner),
        first=present_values(estimator, space),
        problem=parts,
    )
    pairs = [(split.train, split.test) for split in splits]

    def run(trial: Any) -> Exception | None:
        return run_trial(
            study, trial, estimator, problem.X, problem.y, pairs, score, n_jobs
        )

    error = _work(study, space, n_trials, timeout, run)
    params, best = best_of(study, "optimize", error)
    refitted = None
    if refit:
        refitted = clone(estimator).set_params(**params).fit(problem.X, problem.y)
    trials = trials_table(study, space)
    return Optimized(params, best, trials, study.study_name, refitted)


def _work(
    study: Any,
    space: Mapping[str, Any],
    n_trials: int,
    timeout: float | None,
    run: Callable[[Any], Exception | None],
) -> Exception | None:
    """Run trials until the study has enough; return why the first bad one was bad."""
    from bsym_sklearn.analysis.studies import claim, retire_dead, signs_of_life
    from bsym_sklearn.analysis.trials import finished

    started, first = time.monotonic(), None
    while timeout is None or time.monotonic() - started < timeout:
        retire_dead(study)
        trial = claim(study, space, n_trials)
        if trial is not None:
            with signs_of_life(trial):
                first = run(trial) or first
        elif len(finished(study)) >= n_trials:
            break
        else:
            time.sleep(POLL_SECONDS)
    return first


def _as_estimator(
    model: Any,
    space: Mapping[str, Any] | None,
    task: str,
    *,
    size: str | None,
    group_column: str,
    seed: int,
) -> tuple[Any, dict[str, Any]]:
    """Return an estimator and what to search of it."""
    estimator = model
    if isinstance(model, str):
        estimator = make_model(
            model, task, size, group_column=group_column, random_state=seed
        )
        space = search_space(model, task) if space is None else space
    if not space:
        raise ValueError(
            f"optimize needs a parameter to search. Got none for {model!r}. Give a "
            "`space`, or fit the model as it is if it has nothing to tune."
        )
    return estimator, dict(space)


def _as_scorer(scoring: str | Scorer | None, estimator: Any) -> Scorer:
    """Return what scores a fitted model."""
    if scoring is None:
        return default_scoring(estimator)
    return get_scorer(scoring) if isinstance(scoring, str) else scoring


def _as_pruner(pruner: Any) -> Any:
    """Return what stops bad trials."""
    if not isinstance(pruner, str):
        return pruner
    check_choice(pruner, ("median",), "pruner")
    from optuna.pruners import MedianPruner

    return MedianPruner()


def _identity(
    problem: Problem,
    splits: list[Split],
    estimator: Any,
    space: Mapping[str, Any],
    scoring: Scorer,
) -> dict[str, str]:
    """Return hashes of all that scores depend on, beside the parameters."""
    return {
        "data": problem.fingerprint(),
        "splits": hash_of([[rows.tolist() for rows in split] for split in splits]),
        "model": hash_of(describe(estimator)),
        "space": hash_of({name: repr(part) for name, part in space.items()}),
        "scoring": hash_of(describe(scoring)),
    }
