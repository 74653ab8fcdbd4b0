"""The same search, with the same budget, for every model that has something to tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.utils import check_scalar

LOWEST_PROBABILITY = 1e-12

Scorer = Callable[[Any, Any, np.ndarray], float]
Splits = Sequence[tuple[np.ndarray, np.ndarray]]


class Tuned(NamedTuple):
    """Result of :func:`tune`.

    Parameters
    ----------
    params : dict of str to value
        For ``estimator.set_params``.
    score : float
        Mean over the splits; higher is better. Optimistic, being the best of many.
    trials : DataFrame of shape (n_trials, n_params + 3)
        One row per trial in the order tried: its parameters, ``score`` (NaN if it
        failed), ``seconds`` and ``error`` (empty if there was none).
    """

    params: dict[str, Any]
    score: float
    trials: pd.DataFrame


def tune(
    estimator: Any,
    space: Mapping[str, Any],
    X: Any,
    y: ArrayLike,
    splits: Splits,
    *,
    n_trials: int = 20,
    seed: int = 0,
    scoring: Scorer | None = None,
) -> Tuned:
    """Search parameters by their mean score over splits of the training rows.

    Tree-structured Parzen estimator (optuna), in memory and reproducible. The first
    trial has the parameters that `estimator` came with, if the space has them, so that
    the result is never below them on these splits. A trial whose fit raises ValueError
    or FloatingPointError, or whose score is not finite, counts as a bad trial.

    Parameters
    ----------
    estimator : estimator
        Not fitted and not changed; each fit is that of a clone.
    space : mapping of str to optuna distribution
        By names that ``estimator.set_params`` takes; see
        :func:`~bsym_sklearn.estimators.registry.search_space`.
    X : cohort or array-like with n_scans rows
        Training rows only: the scores of a test set must not be searched.
    y : array-like of shape (n_scans,)
        Targets.
    splits : sequence of (ndarray, ndarray)
        Row numbers to fit on and to score, the same for every model that is compared.
    n_trials : int, default=20
        Trials, at least 1; each fits once per split.
    seed : int, default=0
        Draws the trials. The seed of the fits is that of `estimator`.
    scoring : callable or None, default=None
        ``scoring(fitted, X, y)``, higher is better. None takes
        :func:`log_likelihood` for a classifier and the negative mean squared error
        otherwise.

    Returns
    -------
    Tuned

    Raises
    ------
    ValueError
        If there is nothing to search, or no trial could be fitted.
    ImportError
        If optuna is not installed.

    References
    ----------
    .. [1] Akiba et al. (2019). Optuna: a next-generation hyperparameter optimization
       framework. KDD.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from sklearn.linear_model import Ridge
    >>> X, y = np.arange(12.0).reshape(-1, 1), np.arange(12.0)
    >>> splits = [(np.arange(6), np.arange(6, 12)), (np.arange(6, 12), np.arange(6))]
    >>> space = {"alpha": FloatDistribution(1e-3, 1e3, log=True)}
    >>> tuned = tune(Ridge(), space, X, y, splits, n_trials=8)
    >>> tuned.params["alpha"] < 1, len(tuned.trials)
    (True, 8)
    """
    check_scalar(n_trials, "n_trials", int, min_val=1)
    if not space or not len(splits):
        raise ValueError(
            "tune needs a parameter to search and a split to score it on. Got "
            f"{len(space)} parameters and {len(splits)} splits. Fit the estimator as "
            "it is if it has nothing to tune."
        )
    scoring = scoring or default_scoring(estimator)
    require_optuna()
    from optuna.samplers import TPESampler

    from bsym_sklearn.analysis.studies import open_study, present_values
    from bsym_sklearn.analysis.trials import best_of, run_trial, trials_table

    first = present_values(estimator, space)
    study = open_study(sampler=TPESampler(seed=seed), first=first)
    y = np.asarray(y)
    errors = [
        run_trial(study, study.ask(dict(space)), estimator, X, y, splits, scoring)
        for _ in range(n_trials)
    ]
    params, score = best_of(study, "tune", next(filter(None, errors), None))
    trials = trials_table(study, space).drop(columns="n_folds")
    return Tuned(params, score, trials)


def log_likelihood(model: Any, X: Any, y: ArrayLike) -> float:
    r"""Return the mean log-probability of the truth, :math:`\frac1n\sum_i\log p_i`.

    A scorer for scikit-learn that is defined for every split: a class that the model
    has never seen has probability 0, counted as 1e-12.

    Parameters
    ----------
    model : fitted classifier
        With ``classes_`` and ``predict_proba``.
    X : cohort or array-like with n_scans rows
        Scans to score.
    y : array-like of shape (n_scans,)
        Their classes.

    Returns
    -------
    float
        At most 0; higher is better.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> model = DummyClassifier(strategy="prior").fit([[0], [0]], ["a", "b"])
    >>> round(log_likelihood(model, [[0], [0]], ["a", "b"]), 3)  # log(1 / 2)
    -0.693
    """
    y = np.asarray(y)
    column_of = {label: i for i, label in enumerate(model.classes_)}
    columns = np.array([column_of.get(label, -1) for label in y])
    probabilities = np.asarray(model.predict_proba(X), dtype=float)
    of_truth = probabilities[np.arange(len(y)), columns]
    of_truth = np.where(columns < 0, 0.0, of_truth)
    return float(np.log(np.maximum(of_truth, LOWEST_PROBABILITY)).mean())


def default_scoring(estimator: Any) -> Scorer:
    """Return the score that a search maximises if it is told none.

    Parameters
    ----------
    estimator : estimator
        To search for.

    Returns
    -------
    callable
        :func:`log_likelihood` of a classifier, else the negative mean squared error.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> default_scoring(DummyClassifier()) is log_likelihood
    True
    """
    return log_likelihood if is_classifier(estimator) else _negative_mse


def require_optuna() -> None:
    """Raise if Optuna is not installed.

    Raises
    ------
    ImportError
        Saying what to install.

    Examples
    --------
    >>> require_optuna()
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'The search needs optuna. Install it with: pip install "bsym_sklearn[tune]"'
        ) from error


def _negative_mse(model: Any, X: Any, y: np.ndarray) -> float:
    """Return the mean squared error, negated so that higher is better."""
    return -float(np.mean((np.asarray(model.predict(X)) - y) ** 2))
