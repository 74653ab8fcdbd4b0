"""Optuna's search where scikit-learn expects one of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.callback import CallbackContext
from sklearn.model_selection import check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval

from bsym_sklearn.analysis.tuning import require_optuna

MAX_SEED = np.iinfo(np.int32).max


class OptunaSearchCV(BaseSearchCV):
    """Search parameters by cross-validation, each chosen after the last was scored.

    A :class:`~sklearn.model_selection.RandomizedSearchCV` whose candidates are drawn by
    a tree-structured Parzen estimator. It is a classifier or a regressor as its
    estimator is, takes groups and weights by metadata routing, callbacks, several
    scores, and goes into ``cross_validate``. For a search that several processes share,
    see :func:`~bsym_sklearn.analysis.optimization.optimize`.

    Parameters
    ----------
    estimator : estimator
        Each fit is that of a clone. The first candidate has its own parameters, where
        the distributions have them.
    param_distributions : mapping of str to optuna distribution
        By names that ``estimator.set_params`` takes; see
        :func:`~bsym_sklearn.estimators.search_spaces.search_space`.
    n_trials : int, default=20
        Candidates, at least 1.
    timeout : float or None, default=None
        Seconds after which no further candidate is begun; the first always is.
    random_state : int, RandomState or None, default=None
        Draws the candidates.
    scoring : str, callable, list, dict or None, default=None
        See :class:`~sklearn.model_selection.GridSearchCV`.
    n_jobs : int or None, default=None
        Fits of a candidate at a time.
    refit : bool or str, default=True
        Whether to fit the best candidate to all rows; with several scores, the name of
        the one to search by.
    cv : int, splitter, iterable or None, default=None
        See :class:`~sklearn.model_selection.GridSearchCV`.
    verbose : int, default=0
        See :class:`~sklearn.model_selection.GridSearchCV`.
    error_score : "raise" or float, default=nan
        Score of a fit that fails. With NaN, a candidate of which all fits fail is left
        out of `cv_results_`.
    return_train_score : bool, default=False
        Whether to score the training rows too.

    Attributes
    ----------
    best_estimator_, best_params_, best_score_, best_index_, cv_results_, n_splits_, \
refit_time_, scorer_, multimetric_, classes_, n_features_in_
        As of :class:`~sklearn.model_selection.GridSearchCV`.

    References
    ----------
    .. [1] Akiba et al. (2019). Optuna: a next-generation hyperparameter optimization
       framework. KDD.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from sklearn.base import is_classifier
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = make_classification(random_state=0)
    >>> space = {"C": FloatDistribution(1e-3, 1e3, log=True)}
    >>> search = OptunaSearchCV(LogisticRegression(), space, n_trials=4, random_state=0)
    >>> is_classifier(search), len(search.fit(X, y).cv_results_["params"])
    (True, 4)
    """

    _checked_cv_orig: Any
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSearchCV._parameter_constraints,
        "param_distributions": [HasMethods(["keys", "items"])],
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "timeout": [Interval(Real, 0, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Mapping[str, Any],
        *,
        n_trials: int = 20,
        timeout: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: bool | str = True,
        cv: Any = None,
        verbose: int = 0,
        error_score: float | str = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.timeout = timeout
        self.random_state = random_state

    def _check_input_parameters(self, X: Any, y: Any, split_params: Any) -> None:
        """Draw the splits once: candidates are compared on the same ones."""
        splits = list(self._checked_cv_orig.split(X, y, **split_params))
        self._checked_cv_orig = check_cv(splits)

    def _run_search(
        self,
        evaluate_candidates: Callable[..., dict[str, Any]],
        *,
        callback_ctx: CallbackContext,
    ) -> None:
        """Ask for a candidate, score it, and tell, until there were enough."""
        study = self._study()
        from optuna.trial import TrialState

        started, failures = time.monotonic(), []
        search = callback_ctx.subcontext(
            task_name="search", max_subtasks=self.n_trials
        ).call_on_fit_task_begin(estimator=self)
        for i in range(self.n_trials):
            if i and self._is_late(started):
                break
            trial = study.ask(dict(self.param_distributions))
            task = search.subcontext(
                task_name="candidate",
                max_subtasks=self.n_splits_,
                sequential_subtasks=False,
            ).call_on_fit_task_begin(estimator=self)
            score = np.nan
            try:
                results = evaluate_candidates([trial.params], callback_ctx=task)
            except ValueError as error:  # no split could be fitted
                if self.error_score == "raise":
                    raise
                failures.append(error)
            else:
                score = self._latest(results)
            if np.isfinite(score):
                study.tell(trial, score)
            else:
                study.tell(trial, state=TrialState.PRUNED)  # to be avoided
            if task.call_on_fit_task_end(estimator=self):
                break
        search.call_on_fit_task_end(estimator=self)
        if len(failures) == i + 1:
            raise failures[0]

    def _study(self) -> Any:
        """Return a study in memory that starts with what the estimator has."""
        require_optuna()
        from optuna.samplers import TPESampler

        from bsym_sklearn.analysis.studies import open_study, present_values

        seed = int(check_random_state(self.random_state).randint(MAX_SEED))
        return open_study(
            sampler=TPESampler(seed=seed),
            first=present_values(self.estimator, self.param_distributions),
        )

    def _is_late(self, started: float) -> bool:
        """Say whether no further candidate is to be begun."""
        return self.timeout is not None and time.monotonic() - started >= self.timeout

    def _latest(self, results: Mapping[str, Any]) -> float:
        """Return the score of the last candidate that is searched by."""
        name = self.refit if isinstance(self.refit, str) else "score"
        if f"mean_test_{name}" not in results:
            raise TypeError(
                "OptunaSearchCV needs one score to search by. Got several and refit="
                f"{self.refit!r}. Set `refit` to the name of one."
            )
        return float(results[f"mean_test_{name}"][-1])
