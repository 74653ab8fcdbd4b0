"""One trial of a search: fitted, scored split by split, and told to its study.

The module needs Optuna; who imports it asks
:func:`~bsym_sklearn.analysis.tuning.require_optuna` first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import optuna
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, Trial, TrialState
from sklearn.base import clone
from sklearn.utils import _safe_indexing

# What a bad choice of parameters may raise: refused, or training that diverged.
FAILURES = (ValueError, FloatingPointError)
DIED = "its worker died"  # not said by the trial itself
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

logger = logging.getLogger(__name__)


def run_trial(
    study: optuna.Study,
    trial: Trial,
    estimator: Any,
    X: Any,
    y: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    scoring: Callable[[Any, Any, np.ndarray], float],
    n_jobs: int | None = 1,
) -> Exception | None:
    """Fit and score the parameters of one trial, and tell the study.

    A trial that cannot be fitted or scored, or that the pruner stops, is told as
    pruned, so that the sampler learns to avoid it. Any other error frees the trial.

    Parameters
    ----------
    study : optuna.Study
        Is told the mean over the splits. A study with a pruner is also told the mean so
        far after each split.
    trial : optuna Trial
        Asked of `study`.
    estimator, X, y, splits
        See :func:`~bsym_sklearn.analysis.tuning.tune`.
    scoring : callable
        ``scoring(fitted, X, y)``, higher is better.
    n_jobs : int or None, default=1
        Splits at a time; what is told does not depend on it.

    Returns
    -------
    Exception or None
        What made it a bad trial.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> study = optuna.create_study(direction="maximize")
    >>> trial = study.ask({"alpha": optuna.distributions.FloatDistribution(0.1, 1.0)})
    >>> X, y, rows = np.eye(4), np.ones(4), np.arange(4)
    >>> r2 = lambda model, X, y: model.score(X, y)
    >>> run_trial(study, trial, Ridge(), X, y, [(rows, rows)], r2)
    >>> study.best_value
    1.0
    """
    started = time.perf_counter()
    scores: list[float] = []
    failure = None
    state = TrialState.FAIL
    watch = None if isinstance(study.pruner, NopPruner) else trial
    try:
        candidate = clone(estimator).set_params(**trial.params)
        jobs = _fold_scores(candidate, X, y, splits, scoring, n_jobs)
        _collect(scores, jobs, len(splits), watch)
        state = TrialState.PRUNED
        if len(scores) == len(splits) and np.isfinite(np.mean(scores)):
            state = TrialState.COMPLETE
    except FAILURES as error:
        failure, state = error, TrialState.PRUNED
    except UpdateFinishedTrialError:
        logger.warning("Trial %d was taken over by another process", trial.number)
    finally:  # Ctrl-C and bugs too: the trial is free
        with suppress(UpdateFinishedTrialError):  # taken over
            trial.set_user_attr("error", _named(failure))
            trial.set_user_attr("seconds", time.perf_counter() - started)
            trial.set_user_attr("n_folds", len(scores))
            score = float(np.mean(scores)) if state == TrialState.COMPLETE else None
            study.tell(trial, score, state=state)
    return failure


def trials_table(study: optuna.Study, space: Mapping[str, Any]) -> pd.DataFrame:
    """Return the finished trials of a study, in the order of their numbers.

    Parameters
    ----------
    study : optuna.Study
        Of :func:`run_trial`.
    space : mapping of str to optuna distribution
        Its parameters.

    Returns
    -------
    DataFrame
        The parameters, ``score`` (NaN if it was pruned or could not be had),
        ``n_folds`` that were scored, ``seconds`` and ``error`` (empty if there was
        none).

    Examples
    --------
    >>> study = optuna.create_study()
    >>> trials_table(study, {"lr": None}).columns.tolist()
    ['lr', 'score', 'n_folds', 'seconds', 'error']
    """
    columns = [*space, "score", "n_folds", "seconds", "error"]
    rows = [
        {
            **trial.params,
            "score": trial.value if trial.state == TrialState.COMPLETE else np.nan,
            "n_folds": trial.user_attrs.get("n_folds", 0),
            "seconds": trial.user_attrs.get("seconds", np.nan),
            "error": trial.user_attrs.get("error", DIED),
        }
        for trial in finished(study)
    ]
    return pd.DataFrame(rows, columns=columns)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of a study that are complete or pruned, by number.

    Parameters
    ----------
    study : optuna.Study
        Of any kind.

    Returns
    -------
    list of optuna FrozenTrial

    Examples
    --------
    >>> finished(optuna.create_study())
    []
    """
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return sorted(trials, key=lambda trial: trial.number)


def best_of(
    study: optuna.Study, caller: str, cause: Exception | None = None
) -> tuple[dict[str, Any], float]:
    """Return the best of the trials of a study, the first of equals.

    Parameters
    ----------
    study : optuna.Study
        Of :func:`run_trial`.
    caller : str
        Who asks, for the error.
    cause : Exception or None, default=None
        Of the first bad trial.

    Returns
    -------
    params : dict of str to value
        What was tried.
    score : float
        What it reached.

    Raises
    ------
    ValueError
        If no trial has a score.

    Examples
    --------
    >>> study = optuna.create_study(direction="maximize")
    >>> numbers = [study.tell(study.ask(), x).number for x in (1.0, 2.0)]
    >>> best_of(study, "tune")
    ({}, 2.0)
    """
    trials = finished(study)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    scores = [trial.value for trial in complete if trial.value is not None]
    if not scores:
        first = [trial.user_attrs.get("error", DIED) for trial in trials[:1]]
        reason = f", first {first[0] or 'a score that is not finite'}" if first else "."
        raise ValueError(
            f"{caller} needs one trial that can be fitted and scored. Got none in "
            f"{len(trials)}{reason}"
        ) from cause
    best = int(np.argmax(scores))
    return complete[best].params, scores[best]


def _fold_scores(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    scoring: Callable[[Any, Any, np.ndarray], float],
    n_jobs: int | None,
) -> Iterator[float]:
    """Yield the score on each split in turn, computing some at a time."""
    if n_jobs == 1:
        for train, test in splits:
            yield _fold_score(estimator, X, y, train, test, scoring)
        return
    n_together = effective_n_jobs(n_jobs)
    with Parallel(n_jobs) as parallel:
        for start in range(0, len(splits), n_together):
            yield from parallel(
                delayed(_fold_score)(estimator, X, y, train, test, scoring)
                for train, test in splits[start : start + n_together]
            )


def _fold_score(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    scoring: Callable[[Any, Any, np.ndarray], float],
) -> float:
    """Fit on one side of a split and score the other."""
    fitted = clone(estimator).fit(_safe_indexing(X, train), y[train])
    return float(scoring(fitted, _safe_indexing(X, test), y[test]))


def _collect(
    scores: list[float], new: Iterable[float], n_splits: int, trial: Any
) -> None:
    """Append scores while they are finite and the pruner of the trial is content."""
    for score in new:
        if not np.isfinite(score):
            return
        scores.append(score)
        if trial is not None and len(scores) < n_splits:
            trial.report(float(np.mean(scores)), len(scores) - 1)
            if trial.should_prune():
                return


def _named(error: Exception | None) -> str:
    """Return the kind of an error and what it says."""
    return "" if error is None else f"{type(error).__name__}: {error}"
