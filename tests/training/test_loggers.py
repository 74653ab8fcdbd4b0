"""Loggers of epochs: what they write, where, and what they need."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score

from bsym_sklearn import BrainSymphonyClassifier, BrainSymphonyEmbedder
from bsym_sklearn.training.distributed import is_first_process
from bsym_sklearn.training.loggers import MLflowLogger, TensorBoardLogger

TINY = {"dim": 8, "depth": 1, "n_heads": 2, "random_state": 0}
EACH_EPOCH = ["lr", "seconds", "train_loss", "valid_loss"]


def classifier(**params) -> BrainSymphonyClassifier:
    return BrainSymphonyClassifier(
        **TINY | {"max_epochs": 2, "validation_fraction": 0.4} | params
    )


# ---------------------------------------------------------------------- TensorBoard


def read(folder: Path) -> list[dict[str, list[tuple[int, float]]]]:
    """Return the numbers of every run in a folder."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs tensorboard",
    )
    runs = []
    for run in sorted(folder.iterdir()):
        events = reader.EventAccumulator(str(run)).Reload()
        runs.append(
            {
                tag: [(e.step, e.value) for e in events.Scalars(tag)]
                for tag in events.Tags()["scalars"]
            }
        )
    return runs


def test_tensorboard_shows_epochs_parameters_and_score(cohort, tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    logger = TensorBoardLogger(tmp_path, scoring="accuracy")
    model = classifier().set_callbacks(logger).fit(cohort.data, cohort.target)
    (run,) = read(tmp_path)
    final = {name: run.pop(name) for name in list(run) if name.startswith("final/")}
    assert sorted(run) == EACH_EPOCH
    for name in ("train_loss", "valid_loss"):
        assert [step for step, _ in run[name]] == [1, 2]
        losses = [loss for _, loss in run[name]]
        np.testing.assert_allclose(losses, model.history_[name], rtol=1e-6)
    assert run["lr"][0][1] == pytest.approx(model.lr)
    accuracy = model.score(cohort.data, cohort.target)
    assert final["final/score"][0][1] == pytest.approx(accuracy)
    assert final["final/n_epochs"][0][1] == 2


def test_a_run_of_its_own_for_every_fit_also_in_other_workers(cohort, tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    model = classifier(max_epochs=1).set_callbacks(TensorBoardLogger(tmp_path))
    with joblib.parallel_config(backend="threading"):
        cross_val_score(
            model, cohort.data, cohort.target, cv=KFold(2), n_jobs=2, scoring="accuracy"
        )
    clone(model).fit(cohort.data, cohort.target)
    assert len(read(tmp_path)) == 3
    assert all(len(run["train_loss"]) == 1 for run in read(tmp_path))


def test_of_processes_that_fit_together_the_first_one_logs(
    cohort, tmp_path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        for rank, is_first in (("0", True), ("1", False)):
            patch.setenv("RANK", rank)
            assert is_first_process() is is_first
    name = "bsym_sklearn.training.loggers.is_first_process"
    monkeypatch.setattr(name, lambda: False)
    logger = TensorBoardLogger(tmp_path / "logs", scoring="accuracy")
    classifier(max_epochs=1).set_callbacks(logger).fit(cohort.data, cohort.target)
    assert not (tmp_path / "logs").exists()


def test_tensorboard_is_named_if_it_is_not_there(cohort, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    model = classifier().set_callbacks(TensorBoardLogger("logs"))
    with pytest.raises(ImportError, match=r'install "bsym_sklearn\[tensorboard\]"'):
        model.fit(cohort.data, cohort.target)


# --------------------------------------------------------------------------- MLflow


class FakeClient:
    """What a logger uses of MlflowClient, in memory."""

    experiments: dict[str, str]
    runs: dict[str, dict]

    def __init__(self, tracking_uri: str | None) -> None:
        self.tracking_uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        found = self.experiments.get(name)
        return found and SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, f"e{len(self.experiments)}")

    def create_run(self, experiment_id: str, run_name: str) -> SimpleNamespace:
        run = {"experiment": experiment_id, "name": run_name, "status": "RUNNING"}
        self.runs[run_name] = run | {"metrics": {}, "params": {}}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_param(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id]["params"][key] = value

    def log_metric(self, run_id: str, key: str, value: float, step: int = 0) -> None:
        self.runs[run_id]["metrics"].setdefault(key, []).append((step, value))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status


@pytest.fixture
def mlflow(monkeypatch) -> type[FakeClient]:
    """Put an MLflow in memory in the place of the real one."""
    client = type("Client", (FakeClient,), {"experiments": {}, "runs": {}})
    module, exceptions = ModuleType("mlflow"), ModuleType("mlflow.exceptions")
    module.MlflowClient = client
    exceptions.MlflowException = type("MlflowException", (Exception,), {})
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    return client


def test_mlflow_has_epochs_parameters_and_score(cohort, mlflow) -> None:
    logger = MLflowLogger("study", tracking_uri="sqlite:///m.db", scoring="accuracy")
    model = classifier().set_callbacks(logger).fit(cohort.data, cohort.target)
    (run,) = mlflow.runs.values()
    assert run["status"] == "FINISHED"
    assert run["params"]["dim"] == "8"
    assert set(run["params"]) == set(model.get_params(deep=False))
    losses = [(i + 1, loss) for i, loss in enumerate(model.history_["valid_loss"])]
    assert run["metrics"]["valid_loss"] == losses
    assert run["metrics"]["final_valid_loss"] == [(0, min(loss for _, loss in losses))]
    accuracy = model.score(cohort.data, cohort.target)
    assert run["metrics"]["final_score"] == [(0, accuracy)]


def test_mlflow_keeps_fits_of_one_experiment_together(cohort, mlflow) -> None:
    model = BrainSymphonyEmbedder(**TINY, max_epochs=1, validation_fraction=0.0)
    model.set_callbacks(MLflowLogger("study")).fit(cohort.data)
    model.fit(cohort.data)
    assert [run["experiment"] for run in mlflow.runs.values()] == ["e0", "e0"]
    for run in mlflow.runs.values():
        assert "valid_loss" not in run["metrics"]


def test_mlflow_marks_fits_that_fail(cohort, mlflow) -> None:
    model = classifier(lr=1e30).set_callbacks(MLflowLogger("study"))
    with pytest.raises(FloatingPointError):
        model.fit(cohort.data, cohort.target)
    (run,) = mlflow.runs.values()
    assert run["status"] == "FAILED"


def test_two_processes_may_make_the_same_experiment(cohort, mlflow, monkeypatch):
    def late(self, name: str) -> str:
        self.experiments[name] = "theirs"
        raise sys.modules["mlflow.exceptions"].MlflowException

    monkeypatch.setattr(mlflow, "create_experiment", late)
    classifier(max_epochs=1).set_callbacks(MLflowLogger("study")).fit(
        cohort.data, cohort.target
    )
    assert [run["experiment"] for run in mlflow.runs.values()] == ["theirs"]


def test_mlflow_is_named_if_it_is_not_there(cohort, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    model = classifier().set_callbacks(MLflowLogger("study"))
    with pytest.raises(ImportError, match=r'install "bsym_sklearn\[mlflow\]"'):
        model.fit(cohort.data, cohort.target)


def test_loggers_travel_without_open_runs(cohort, mlflow) -> None:
    logger = MLflowLogger("study")
    seen = []

    class Peek:
        def setup(self, estimator, context) -> None:
            seen.append(copy.deepcopy(logger))
            assert len(logger._runs) == 1

        def teardown(self, estimator, context) -> None: ...

        def on_fit_task_begin(self, estimator, context) -> None: ...

        def on_fit_task_end(self, estimator, context) -> None: ...

    model = classifier(max_epochs=1).set_callbacks(logger, Peek())
    model.fit(cohort.data, cohort.target)
    assert seen[0]._runs == logger._runs == {}
    assert seen[0].experiment == "study"


def test_logging_changes_no_fit(cohort, mlflow) -> None:
    plain = classifier(dropout=0.3).fit(cohort.data, cohort.target)
    watched = classifier(dropout=0.3).set_callbacks(MLflowLogger("s", scoring="r2"))
    watched.fit(cohort.data, cohort.target)
    expected = plain.predict_proba(cohort.data)
    np.testing.assert_array_equal(watched.predict_proba(cohort.data), expected)
