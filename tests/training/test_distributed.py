"""One fit over several processes, on a CPU with gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bsym_sklearn.training import distributed
from bsym_sklearn.training.checkpoints import load_state
from bsym_sklearn.training.distributed import (
    Processes,
    cuda_of_process,
    find_processes,
    fits_together,
    processes_here,
)

SCRIPT = Path(__file__).with_name("fit_together.py")
PARAMS: dict[str, Any] = {
    "dim": 8,
    "depth": 1,
    "max_epochs": 2,
    "batch_size": 4,
    "validation_fraction": 0.2,
    "random_state": 0,
}
EMBEDDER = {"estimator": "BrainSymphonyEmbedder", "n_scans": 11, "params": PARAMS}

needs_accelerate = pytest.mark.skipif(
    find_spec("accelerate") is None, reason="needs the extra `distributed`"
)

Report = dict[str, Any]


def launch(
    folder: Path, job: Report, n_processes: int = 2, *, restarts: int = 0
) -> tuple[int, list[Report]]:
    """Fit with torchrun; return its exit status and what the processes wrote."""
    command, environment = [sys.executable], {"OMP_NUM_THREADS": "1"}
    if n_processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(n_processes)]
    if restarts:
        command += ["--max-restarts", str(restarts)]
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder), json.dumps(job)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    name = job.get("name", "report")
    paths = sorted(folder.glob(f"{name}*.json"))
    reports = [json.loads(path.read_text()) for path in paths]
    if not reports:
        sys.stderr.write(done.stderr)  # shown by pytest if the test fails
    return done.returncode, reports


def rows(*reports: Report) -> list[list[int]]:
    """Return the scans of each step, of all processes together."""
    steps = zip(*(report["steps"] for report in reports), strict=True)
    return [list(chain(*(part["rows"] for part in parts))) for parts in steps]


def hashes(report: Report) -> list[str]:
    """Return what the weights were before each step, and at the end."""
    return [*(step["hash"] for step in report["steps"]), report["hash"]]


def assert_close(one: Report, two: Report, atol: float) -> None:
    """Compare losses and weights."""
    # without a validation set its loss is not in the history
    np.testing.assert_allclose(one["history"], two["history"], rtol=0, atol=atol)
    for left, right in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=atol)


@needs_accelerate
def test_two_processes_make_the_fit_of_one(tmp_path: Path) -> None:
    """Nine training scans in batches of four: in the last the second has none."""
    job = {**EMBEDDER, "alone": {"micro_batch_size": 2}}
    status, (first, second) = launch(tmp_path, job)
    assert status == 0
    one, two, alone = first["together"], second["together"], first["alone"]
    assert hashes(one) == hashes(two)
    assert len(set(hashes(one))) > len(one["steps"])  # every step changes them
    assert one["history"] == two["history"]
    for epoch in (rows(one, two)[:3], rows(one, two)[3:]):
        seen = list(chain(*epoch))
        assert len(seen) == 9
        assert len(set(seen)) == 9
    assert [len(step["rows"]) for step in two["steps"]] == [2, 2, 0] * 2
    assert rows(one, two) == rows(alone)
    assert_close(one, alone, atol=1e-5)
    assert np.ptp(np.array(one["history"])[:, 1:], axis=0).min() > 1e-3


# What each process computes


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("part", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("n_scans", [1, 2, 5, 15, 16])
def test_each_scan_is_computed_once_in_whole_parts(
    n_scans: int, part: int, count: int
) -> None:
    slices = [Processes(rank, count).own(n_scans, part) for rank in range(count)]
    scans = np.arange(n_scans)
    assert np.concatenate([scans[own] for own in slices]).tolist() == scans.tolist()
    assert all(own.start % part == 0 or own.start == n_scans for own in slices)
    n_parts = -(-n_scans // part)
    longest = max(len(scans[own]) for own in slices)
    assert longest <= -(-n_parts // count) * part


def test_a_process_alone_asks_nobody() -> None:
    alone = Processes()
    module = torch.nn.Linear(2, 1)
    alone.sum_gradients(module.parameters())
    alone.copy_from_first(module.parameters())
    alone.require_same(b"anything")
    assert module.weight.grad is None
    assert alone.of_first("text") == "text"
    assert alone.is_first
    assert not torch.distributed.is_initialized()


# Who fits together


def test_only_the_main_thread_of_a_launched_process_fits_with_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not fits_together()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert fits_together()
    assert processes_here() == 2
    monkeypatch.setattr(distributed.threading, "current_thread", lambda: None)
    assert not fits_together()
    assert processes_here() == 1
    assert find_processes() == Processes()
    monkeypatch.undo()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.multiprocessing, "parent_process", lambda: 1)
    assert not fits_together()


def test_each_process_of_a_machine_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert cuda_of_process() == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert cuda_of_process() == "cuda:1"


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        ImportError,
        match=r"A fit over 2 processes needs accelerate. Install it with: pip install "
        r'"bsym_sklearn\[distributed\]". To fit in each process by itself, unset the '
        "environment variable WORLD_SIZE.",
    ):
        find_processes()


@needs_accelerate
def test_a_restart_needs_a_new_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the old one the processes would wait for addresses of the dead."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(
        RuntimeError,
        match=r"Processes that torchrun starts again need a new store for their "
        r"addresses. Got the one of the start before. Set the environment variable "
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun.",
    ):
        find_processes()


# Slow: more launches


SUPERVISED = {**PARAMS, "max_epochs": 8, "patience": 1, "lr": 0.05}
JOBS = [
    pytest.param({"params": {**PARAMS, "batch_size": 5}}, 3, id="uneven"),
    pytest.param({"params": {**PARAMS, "objective": "staged", "max_epochs": 7}}, 2),
    pytest.param({"params": {**PARAMS, "random_state": None}}, 2, id="no seed"),
    pytest.param(
        {"estimator": "BrainSymphonyClassifier", "params": SUPERVISED}, 2, id="stops"
    ),
    pytest.param(
        {
            "estimator": "BrainSymphonyRegressor",
            "params": {**PARAMS, "strategy": "probe", "pretrain_epochs": 1},
        },
        2,
        id="probe",
    ),
]


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize(("job", "n_processes"), JOBS)
def test_every_fit_is_that_of_one_process(
    job: Report, n_processes: int, tmp_path: Path
) -> None:
    size = job["params"]["batch_size"]
    job = {**EMBEDDER, **job, "alone": {"micro_batch_size": -(-size // n_processes)}}
    _, reports = launch(tmp_path, job, n_processes)
    together = [report["together"] for report in reports]
    for other in together[1:]:
        assert hashes(other) == hashes(together[0])
        assert other["history"] == together[0]["history"]
    if job["params"]["random_state"] is None:
        assert len({report["seed"] for report in together}) == 1
        return
    assert rows(*together) == rows(reports[0]["alone"])
    assert_close(together[0], reports[0]["alone"], atol=1e-4)


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [1, "auto"])
def test_shares_are_cut_into_parts(micro_batch_size: int | str, tmp_path: Path) -> None:
    params = {**PARAMS, "micro_batch_size": micro_batch_size}
    alone = {"micro_batch_size": 1 if micro_batch_size == 1 else 2}
    _, reports = launch(tmp_path, {**EMBEDDER, "params": params, "alone": alone})
    one, two = (report["together"] for report in reports)
    assert hashes(one) == hashes(two)
    assert_close(one, reports[0]["alone"], atol=1e-5)


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize("model", ["BrainJEPAEmbedder", "BrainLMEmbedder", "braingnn"])
def test_other_networks_stay_the_same_in_all_processes(
    model: str, tmp_path: Path
) -> None:
    shared = {k: v for k, v in PARAMS.items() if k not in ("dim", "depth")}
    job = {**EMBEDDER, "estimator": model, "params": shared}
    if model == "braingnn":  # running statistics of batch norms
        job["estimator"] = "NetworkClassifier"
        shared["network"] = model
    status, reports = launch(tmp_path, job)
    assert status == 0
    one, two = (report["together"] for report in reports)
    assert one["hash"] == two["hash"]
    assert one["history"] == two["history"]


@needs_accelerate
@pytest.mark.slow
def test_workers_of_a_process_fit_alone(tmp_path: Path) -> None:
    classifier = {**EMBEDDER, "estimator": "BrainSymphonyClassifier"}
    _, reports = launch(tmp_path, {**classifier, "workers": True})
    assert reports[0]["scores"] == reports[1]["scores"]


@needs_accelerate
@pytest.mark.slow
def test_processes_with_other_scans_are_refused(tmp_path: Path) -> None:
    _, reports = launch(tmp_path, {**EMBEDDER, "unlike": True})
    message = (
        "A fit over 2 processes needs the same scans, targets, parameters and "
        "checkpoint in each. Got others than in process 0, first in process 1. Pass "
        "all scans to every process, which share them out by themselves, and a "
        "`checkpoint_dir` that each can read."
    )
    assert [report["error"] for report in reports] == [["ValueError", message]] * 2


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_nobody_waits_for_a_process_that_fails(rank: int, tmp_path: Path) -> None:
    """The script goes on after the error, so that torchrun does not help."""
    fail = {"rank": rank, "step": 2, "how": "raise"}
    start = time.monotonic()
    status, reports = launch(tmp_path, {**EMBEDDER, "fail": fail})
    assert time.monotonic() - start < 120  # and not half an hour
    assert status == 0
    assert reports[rank]["error"] == ["OSError", "this process alone"]
    kind, message = reports[1 - rank]["error"]
    assert kind == "ConnectionError"
    assert message.startswith("A fit over 2 processes needs all of them. Got no answer")
    assert message.endswith(
        "Look for its error, and start all processes again; with `checkpoint_dir` the "
        "fit goes on from its last checkpoint."
    )


@needs_accelerate
@pytest.mark.slow
def test_a_process_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    fail = {"rank": 1, "step": 2, "how": "sleep"}  # for 20 seconds
    _, reports = launch(tmp_path, {**EMBEDDER, "fail": fail, "timeout": 5})
    assert [report["error"][0] for report in reports] == ["ConnectionError"] * 2


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("always_keep", [False, True])
def test_a_killed_process_costs_no_bit(
    rank: int, always_keep: bool, tmp_path: Path
) -> None:
    """Torchrun ends the other one, and starts both again if it is told to."""
    job = {**EMBEDDER, "always_keep": always_keep}
    job["params"] = {**PARAMS, "checkpoint_dir": str(tmp_path / "states")}
    fail = {"rank": rank, "step": 4, "how": "kill"}
    start = time.monotonic()
    status, reports = launch(tmp_path, {**job, "fail": fail})
    assert status != 0
    assert not reports or "error" in reports[0]
    assert time.monotonic() - start < 120
    (path,) = (tmp_path / "states").iterdir()
    _, metadata = load_state(path)
    assert not metadata["finished"]
    assert len(metadata["history"]) == 1
    assert len(metadata["batches"]) == (1 if always_keep else 0)

    other = tmp_path / "other"
    other.mkdir()
    job["params"] = {**job["params"], "checkpoint_dir": str(other / "states")}
    status, reports = launch(other, {**job, "fail": fail}, restarts=1)
    assert status == 0
    job["params"] = PARAMS
    _, expected = launch(other, {**job, "name": "expected"})
    for report in (*reports, expected[1]):
        assert report["together"]["hash"] == expected[0]["together"]["hash"]
        assert report["together"]["history"] == expected[0]["together"]["history"]


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_fit_goes_on_with_more_or_fewer_processes(
    before: int, after: int, tmp_path: Path
) -> None:
    params = {**PARAMS, "micro_batch_size": 2, "max_epochs": 3}
    expected_job = {**EMBEDDER, "params": params, "name": "expected"}
    _, (expected,) = launch(tmp_path, expected_job, 1)
    job = {**EMBEDDER, "always_keep": True}
    job["params"] = {**params, "checkpoint_dir": str(tmp_path / "states")}
    fail = {"rank": 0, "step": 4, "how": "kill"}  # in the second of three epochs
    status, _ = launch(tmp_path, {**job, "fail": fail}, before)
    assert status != 0
    _, reports = launch(tmp_path, {**job, "name": "after"}, after)
    together = [report["together"] for report in reports]
    assert rows(*together) == rows(expected["together"])[4:]
    assert_close(together[0], expected["together"], atol=1e-5)
