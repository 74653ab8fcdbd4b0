"""Callbacks of scikit-learn that write the epochs of a fit to a logbook."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from sklearn.callback import CallbackContext
from sklearn.metrics import check_scoring

from bsym_sklearn.training.distributed import is_first_process

RECORDED = {"train_loss": "train_loss", "valid_loss": "valid_loss", "dur": "seconds"}
RUN_NAME_DIGITS = 8
LONGEST_TEXT = 250  # characters of a parameter that every MLflow server takes


class EpochLogger(ABC):
    """Hand the numbers of each epoch of a fit, its parameters and its end to a logbook.

    One logger serves any number of fits, also at the same time and in other processes:
    it holds what says where the logbook is, and opens a run for each fit. Of processes
    that fit one model together, the first one writes.

    Parameters
    ----------
    scoring : str, callable or None
        Of the fitted model on the rows it was fitted on; None scores nothing.
    """

    def __init__(self, scoring: str | Callable[..., float] | None) -> None:
        self.scoring = scoring
        self._runs: dict[int, Any] = {}  # by the estimator that is fitted
        self._scores: dict[int, dict[str, float]] = {}

    @abstractmethod
    def _open(self, name: str, parameters: Mapping[str, Any]) -> Any:
        """Begin a run."""

    @abstractmethod
    def _write(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of one epoch, counted from 1."""

    @abstractmethod
    def _close(
        self,
        run: Any,
        parameters: Mapping[str, Any],
        values: Mapping[str, float] | None,
    ) -> None:
        """End a run with its last numbers, or without if the fit failed."""

    def setup(self, estimator: Any, context: CallbackContext) -> None:
        """Begin a run for this fit."""
        if not is_first_process():
            return
        stamp = time.strftime("%Y%m%d-%H%M%S")
        unique = uuid.uuid4().hex[:RUN_NAME_DIGITS]
        name = f"{context.estimator_name}-{stamp}-{unique}"
        self._runs[id(estimator)] = self._open(name, _parameters(estimator))

    def on_fit_task_begin(  # noqa: B027  (the protocol asks for it)
        self, estimator: Any, context: CallbackContext
    ) -> None:
        """Do nothing."""

    def on_fit_task_end(
        self,
        estimator: Any,
        context: CallbackContext,
        *,
        X: Any = None,
        y: Any = None,
        fitted_estimator: Any = None,
    ) -> None:
        """Write an epoch, or keep the score of the whole."""
        if id(estimator) not in self._runs:
            return
        if fitted_estimator is None:  # the end of the fit
            final = _final(estimator.net_.history)
            if self.scoring is not None:
                scorer = check_scoring(estimator, self.scoring)
                final["score"] = float(scorer(estimator, X, y))
            self._scores[id(estimator)] = final
            return
        net = fitted_estimator.net_
        last = net.history[-1]
        values = {new: float(last[old]) for old, new in RECORDED.items() if old in last}
        # of the schedule: layers have shares and multiples of it
        values["lr"] = net.optimizer_.param_groups[0]["lr"] / net.scales_[0]
        self._write(self._runs[id(estimator)], len(net.history), values)

    def teardown(self, estimator: Any, context: CallbackContext) -> None:
        """End the run of this fit."""
        run = self._runs.pop(id(estimator), None)
        values = self._scores.pop(id(estimator), None)
        if run is not None:
            self._close(run, _parameters(estimator), values)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open runs out: they are of this process."""
        return {**self.__dict__, "_runs": {}, "_scores": {}}


class TensorBoardLogger(EpochLogger):
    """Write the epochs of each fit where TensorBoard looks for them.

    ``train_loss``, ``valid_loss``, ``lr`` and ``seconds`` per epoch, and the parameters
    with the last of these and the score as a row of the table of runs.

    Parameters
    ----------
    log_dir : str or Path
        Each fit has a folder of its own in it.
    scoring : str, callable or None, default=None
        Of the fitted model on the rows it was fitted on; None scores nothing.

    Raises
    ------
    ImportError
        In `fit`, if tensorboard is not installed.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> model = BrainSymphonyEmbedder().set_callbacks(TensorBoardLogger("logs"))
    """

    def __init__(
        self,
        log_dir: str | PathLike[str],
        *,
        scoring: str | Callable[..., float] | None = None,
    ) -> None:
        super().__init__(scoring)
        self.log_dir = fspath(log_dir)

    def _open(self, name: str, parameters: Mapping[str, Any]) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoardLogger needs tensorboard. Install it with: pip install "
                '"bsym_sklearn[tensorboard]"'
            ) from error
        return SummaryWriter(Path(self.log_dir) / name)

    def _write(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            run.add_scalar(name, value, epoch)
        run.flush()  # to be seen while the fit goes on

    def _close(
        self,
        run: Any,
        parameters: Mapping[str, Any],
        values: Mapping[str, float] | None,
    ) -> None:
        if values is not None:
            final = {f"final/{name}": value for name, value in values.items()}
            run.add_hparams(dict(parameters), final, run_name=".")
        run.close()


class MLflowLogger(EpochLogger):
    """Write each fit as a run of MLflow.

    ``train_loss``, ``valid_loss``, ``lr`` and ``seconds`` per epoch, the parameters,
    and the score.

    Parameters
    ----------
    experiment : str
        Name; made if it is not there.
    tracking_uri : str or None, default=None
        Folder, database or server. None is what MLflow is set to.
    scoring : str, callable or None, default=None
        Of the fitted model on the rows it was fitted on; None scores nothing.

    Raises
    ------
    ImportError
        In `fit`, if mlflow is not installed.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> model = BrainSymphonyEmbedder().set_callbacks(MLflowLogger("pretraining"))
    """

    def __init__(
        self,
        experiment: str,
        *,
        tracking_uri: str | None = None,
        scoring: str | Callable[..., float] | None = None,
    ) -> None:
        super().__init__(scoring)
        self.experiment = experiment
        self.tracking_uri = tracking_uri

    def _open(self, name: str, parameters: Mapping[str, Any]) -> Any:
        client = self._client()
        run = client.create_run(_experiment(client, self.experiment), run_name=name)
        for key, value in parameters.items():
            client.log_param(run.info.run_id, key, str(value)[:LONGEST_TEXT])
        return client, run.info.run_id

    def _write(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        client, run_id = run
        for name, value in values.items():
            client.log_metric(run_id, name, value, step=epoch)

    def _close(
        self,
        run: Any,
        parameters: Mapping[str, Any],
        values: Mapping[str, float] | None,
    ) -> None:
        client, run_id = run
        for name, value in (values or {}).items():
            client.log_metric(run_id, f"final_{name}", value)
        client.set_terminated(run_id, "FAILED" if values is None else "FINISHED")

    def _client(self) -> Any:
        """Return what talks to the place of the runs."""
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ImportError(
                "MLflowLogger needs mlflow. Install it with: pip install "
                '"bsym_sklearn[mlflow]"'
            ) from error
        return MlflowClient(self.tracking_uri)


def _experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, made if it is not there."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is not None:
        return known.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:  # another process was a little earlier, or it cannot be
        known = client.get_experiment_by_name(name)
        if known is None:
            raise
        return known.experiment_id


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator as numbers, truth values and text."""
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in estimator.get_params(deep=False).items()
    }


def _final(history: Any) -> dict[str, float]:
    """Return the last training loss and the best validation loss of a fit."""
    final = {"n_epochs": float(len(history))}
    for name, choose in (
        ("train_loss", lambda losses: losses[-1]),
        ("valid_loss", min),
    ):
        losses = [epoch[name] for epoch in history.to_list() if name in epoch]
        if losses:
            final[name] = float(choose(losses))
    return final
