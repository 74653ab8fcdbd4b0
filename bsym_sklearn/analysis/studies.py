"""Optuna studies that several processes share and that survive the death of any.

The module needs Optuna; who imports it asks
:func:`~bsym_sklearn.analysis.tuning.require_optuna` first.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import optuna
import psutil
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

BEAT_SECONDS = 30.0  # between two signs of life of a worker
PATIENCE_SECONDS = 300.0  # without one, before a worker elsewhere counts as dead
LOCK_SECONDS = 60  # that SQLite waits for another process
MAX_RETRIES = 1  # of a trial whose worker died: it may be the trial that kills
TAKEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
PROBLEM = "bsym_sklearn.problem"  # user attribute of a study
WORKER = "worker"  # user attribute of a trial: host, process, its start, last sign
RETRIES = "retries"


class TrialSeeds(BaseSampler):
    """Parzen estimator whose draws follow from the seed and the trials before.

    A search that was stopped goes on with the draws that it would have made, and
    workers that share a study do not all draw the same.

    Parameters
    ----------
    seed : int
        Of all draws.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> study = optuna.create_study(sampler=TrialSeeds(0))
    >>> first = study.ask({"lr": FloatDistribution(0.0, 1.0)}).params
    >>> study = optuna.create_study(sampler=TrialSeeds(0))
    >>> study.ask({"lr": FloatDistribution(0.0, 1.0)}).params == first
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._tpe = TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Start the draws of this trial."""
        lost = (TrialState.FAIL, TrialState.WAITING)
        position = sum(
            other.number < trial.number and other.state not in lost
            for other in study.get_trials(deepcopy=False)
        )
        state = np.random.SeedSequence([self.seed, position]).generate_state(1)
        self._tpe = TPESampler(seed=int(state[0]))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        """Return the parameters that are drawn together."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw parameters together."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: Any,
    ) -> Any:
        """Draw one parameter."""
        return self._tpe.sample_independent(
            study, trial, param_name, param_distribution
        )


def open_study(
    name: str | None = None,
    storage: Any = None,
    *,
    sampler: Any,
    pruner: Any = None,
    first: Mapping[str, Any] | None = None,
    problem: Mapping[str, str] | None = None,
) -> optuna.Study:
    """Return a study to maximise, a new one or the one of this name, without a word.

    Parameters
    ----------
    name : str or None, default=None
        In `storage`.
    storage : str, Path, optuna storage or None, default=None
        Address of a database, file of a journal, or memory.
    sampler, pruner : of optuna
        None prunes nothing.
    first : mapping or None, default=None
        Parameters of the first trial of a new study; drawn where it lacks them.
    problem : mapping of str to str, or None, default=None
        Hashes of all that scores depend on, beside the parameters, kept with the study.

    Returns
    -------
    optuna.Study

    Raises
    ------
    ValueError
        If the study is of another problem.

    Examples
    --------
    >>> study = open_study(sampler=TrialSeeds(0), first={"lr": 0.5})
    >>> study.ask({"lr": optuna.distributions.FloatDistribution(0.0, 1.0)}).params
    {'lr': 0.5}
    """
    options = {"sampler": sampler, "pruner": pruner or optuna.pruners.NopPruner()}
    place = _as_storage(storage)
    with _silence():
        try:
            study = optuna.create_study(
                study_name=name, storage=place, direction="maximize", **options
            )
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=place, **options)
        if first and not study.get_trials(deepcopy=False):
            # also if the process that made the study was killed before it came to this
            study.enqueue_trial(dict(first), skip_if_exists=True)
    if problem is not None:
        _check_problem(study, problem)
    return study


def claim(study: optuna.Study, space: Mapping[str, Any], n_trials: int) -> Trial | None:
    """Return the next trial of a study, unless all are finished or being computed.

    Parameters
    ----------
    study : optuna.Study
        Shared by any number of processes.
    space : mapping of str to optuna distribution
        To draw from.
    n_trials : int
        Of all processes together.

    Returns
    -------
    optuna Trial or None

    Examples
    --------
    >>> study = open_study(sampler=TrialSeeds(0))
    >>> [t and t.number for t in (claim(study, {}, 1), claim(study, {}, 1))]
    [0, None]
    """
    if len(study.get_trials(deepcopy=False, states=TAKEN)) >= n_trials:
        return None
    trial = study.ask(dict(space))
    trial.set_user_attr(WORKER, _sign_of_life())
    taken = study.get_trials(deepcopy=False, states=TAKEN)
    if sum(other.number < trial.number for other in taken) < n_trials:
        return trial
    study.tell(trial, state=TrialState.FAIL)  # another process was a little earlier
    return None


@contextmanager
def signs_of_life(trial: Trial) -> Iterator[None]:
    """Say now and then that a trial is being computed.

    Parameters
    ----------
    trial : optuna Trial
        Running.

    Yields
    ------
    None

    Examples
    --------
    >>> study = open_study(sampler=TrialSeeds(0))
    >>> with signs_of_life(study.ask()):
    ...     pass
    """
    ended = Event()

    def beat() -> None:
        with suppress(UpdateFinishedTrialError):  # taken over: it shows when told
            while not ended.wait(BEAT_SECONDS):
                trial.set_user_attr(WORKER, _sign_of_life())

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def retire_dead(study: optuna.Study) -> int:
    """Give up the trials whose workers died, and queue their parameters again.

    A worker of this machine is dead when its process has ended, one of another when it
    gave no sign of life for five minutes. Parameters whose worker died twice count as
    a bad trial, so that a trial that is too large for the machine ends.

    Parameters
    ----------
    study : optuna.Study
        Shared.

    Returns
    -------
    int
        Trials given up.

    Examples
    --------
    >>> study = open_study(sampler=TrialSeeds(0))
    >>> trial = claim(study, {}, 1)
    >>> retire_dead(study)  # this process lives
    0
    """
    n_retired = 0
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in filter(_is_dead, running):
        retries = trial.user_attrs.get(RETRIES, 0)
        state = TrialState.FAIL if retries < MAX_RETRIES else TrialState.PRUNED
        try:
            study.tell(trial.number, state=state)
        except (UpdateFinishedTrialError, ValueError):
            continue  # another process was a little earlier
        n_retired += 1
        # one that died before it was signed may have some only, and is drawn anew
        drawn = trial.params if WORKER in trial.user_attrs else None
        params = drawn or trial.system_attrs.get("fixed_params")
        if params and state == TrialState.FAIL:
            study.enqueue_trial(params, user_attrs={RETRIES: retries + 1})
    return n_retired


def present_values(estimator: Any, space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that an estimator has now, where a space has them.

    Parameters
    ----------
    estimator : estimator
        With `get_params`.
    space : mapping of str to optuna distribution
        To search.

    Returns
    -------
    dict of str to value

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from sklearn.linear_model import Ridge
    >>> present_values(Ridge(), {"alpha": FloatDistribution(0.1, 10.0)})
    {'alpha': 1.0}
    """
    params = estimator.get_params()
    return {
        name: params[name]
        for name, distribution in space.items()
        if name in params and _contains(distribution, params[name])
    }


def _check_problem(study: optuna.Study, problem: Mapping[str, str]) -> None:
    """Keep what a new study searches, or raise if it searches something else."""
    known = study.user_attrs.get(PROBLEM, {})
    if not known and not study.get_trials(deepcopy=False, states=TAKEN):
        study.set_user_attr(PROBLEM, dict(problem))
        return
    others = [name for name, value in problem.items() if known.get(name) != value]
    if others:
        raise ValueError(
            f"optimize needs a study of one problem. Got {study.study_name!r}, whose "
            f"trials are of a problem with other {', '.join(others)}. Choose another "
            "`study_name`, or none to have it made of the problem."
        )


def _contains(distribution: Any, value: Any) -> bool:
    """Say whether a distribution could have drawn a value."""
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    return bool(distribution.low <= value <= distribution.high)


def _as_storage(storage: Any) -> Any:
    """Return what Optuna keeps trials in."""
    if storage is None or isinstance(storage, optuna.storages.BaseStorage):
        return storage
    text = str(storage)
    if "://" in text:
        waits = {"timeout": LOCK_SECONDS} if text.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(text, engine_kwargs={"connect_args": waits})
    from optuna.storages import journal

    path = Path(text).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # the lock that file systems shared over a network keep; a dead owner's expires
    lock = journal.JournalFileOpenLock(str(path))
    _mend(path, lock)
    backend = journal.JournalFileBackend(str(path), lock_obj=lock)
    return optuna.storages.JournalStorage(backend)


def _mend(path: Path, lock: Any) -> None:
    """Cut a last line that was written in part, when the machine stopped."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _sign_of_life() -> list[Any]:
    """Return who computes, and when it was last seen."""
    process = psutil.Process()
    return [socket.gethostname(), process.pid, process.create_time(), time.time()]


def _is_dead(trial: FrozenTrial) -> bool:
    """Say whether nobody computes a running trial any more."""
    if WORKER not in trial.user_attrs:  # asked for this moment, or died in it
        seen = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - seen > PATIENCE_SECONDS
    host, pid, started, seen = trial.user_attrs[WORKER]
    if time.time() - seen > PATIENCE_SECONDS:
        return True
    return host == socket.gethostname() and not _lives(pid, started)


def _lives(pid: int, started: float) -> bool:
    """Say whether a process of this machine is the one that started then."""
    if pid == os.getpid():
        return True
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextmanager
def _silence() -> Iterator[None]:
    """Let Optuna say nothing less than a warning."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)  # the caller's
