"""Short versions of the campaigns of benchmarks/reliability.py, and of what they find.

The campaigns themselves run in one process of their own: theirs must have one thread.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsym_sklearn.data import check_cohort, load_cohort
from bsym_sklearn.exceptions import BrainDataError

pytest.importorskip("h5py", reason="the campaigns write HDF5")
pytest.importorskip("matplotlib", reason="the page has a picture")
pytest.importorskip("optuna", reason="a search is among what is killed")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = [
    pytest.mark.skipif(
        not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
    ),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="the campaigns need Linux"
    ),
]
GOOD = {
    "kills": {"same bits"},
    "disk": {"clear error, nothing lost"},
    "mutations": {"clear error", "same result", "other data"},
    "memory": {"measured"},
    "concurrency": {"same bits"},
}
MOST_GROWN_MB = 20.0  # loose: a few calls only fill caches

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def run_campaigns(*options: str) -> None:
    """Run the script in a process of its own."""
    root = str(BENCHMARKS.parent)
    paths = os.pathsep.join([root, *filter(None, sys.path)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, str(BENCHMARKS / "reliability.py"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def rows_of(folder: Path, campaign: str) -> list[dict[str, Any]]:
    lines = (folder / f"{campaign}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_outcomes(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all rows, of which none may tell of anything bad."""
    found = {campaign: rows_of(folder, campaign) for campaign in GOOD}
    for campaign, rows in found.items():
        bad = [row for row in rows if row["outcome"] not in GOOD[campaign]]
        assert rows
        assert not bad, bad
    for row in found["kills"]:
        assert row["kills"] >= 1, row
        assert row.get("finished_and_changed", 0) == 0, row
        if row.get("most_lost") is not None:
            assert row["lost_at_once"] <= row["most_lost"], row
    for row in found["memory"]:
        assert row["grown_mb"] < MOST_GROWN_MB, row
        assert row["threads"] == 1, row
    return found


def test_short_campaigns_find_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page" / "reliability.md"
    run_campaigns("--quick", "--out", str(tmp_path), "--document", str(page))
    found = check_outcomes(tmp_path)
    parts = {row["part"] for rows in found.values() for row in rows}
    assert {"pretraining", "a comparison", "saved models", "transform"} <= parts
    text = page.read_text()
    assert all(f"| {part} |" in text for part in parts)
    assert "made *0* times" in text
    assert "What else came out" not in text
    assert str(tmp_path) not in text
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_longer_campaigns_find_nothing(tmp_path: Path, load: Load) -> None:
    script = f"""\
import sys
import reliability
reliability.FULL = reliability.Plan(5, 3, 100, 500, 40, 64, 1)
reliability.main(["--out", {str(tmp_path)!r}])
"""
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_outcomes(tmp_path)


# ------------------------------------------------- what the campaigns stand on


def crash() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def leave() -> None:
    os._exit(3)


def take_memory() -> int:
    return len(bytearray(400_000_000))


def fail() -> None:
    raise KeyError("of the child")


@pytest.mark.parametrize(
    ("work", "options", "how", "value"),
    [
        (lambda: [1, 2], {}, "returned", [1, 2]),
        (fail, {}, "raised", ["KeyError", "'of the child'"]),
        (crash, {}, "crashed", [signal.SIGTERM, ""]),
        (leave, {}, "crashed", [3 << 8, ""]),
        (take_memory, {"megabytes": 200}, "raised", ["MemoryError", ""]),
        (lambda: time.sleep(60), {"patience": 0.2}, "hung", None),
        (lambda: time.sleep(60), {"kill_after": 0.2}, "killed", None),
    ],
)
def test_a_child_is_told_by_its_end(load: Load, work, options, how, value) -> None:
    end = load("_reliability_children").in_child(work, **options)
    assert (end.how, end.value) == (how, value)
    assert end.seconds < 30


def test_trials_survive_a_line_that_was_cut(load: Load, tmp_path: Path) -> None:
    module = load("_reliability_trials")
    trials = module.Trials(tmp_path / "a.jsonl")
    for number in (0, 1):
        trial = module.Trial("part", number, lambda _: {})
        trials.put(trial, {"outcome": "same bits"})
    text = trials.path.read_text()
    trials.path.write_text(text[:-5])
    again = module.Trials(trials.path)
    assert [again.has("part", number) for number in (0, 1)] == [True, False]
    again.put(trial, {"outcome": "same bits"})
    assert trials.path.read_text() == text


def test_a_leak_has_a_slope_and_noise_has_none(load: Load) -> None:
    memory = load("_reliability_memory")
    calls = list(range(100, 10_100, 100))
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(calls))
    flat = memory.fit_slope(calls, (100 + noise).tolist())
    assert flat.low < 0 < flat.high
    leak = memory.fit_slope(calls, [100 + 1e-3 * call for call in calls])
    assert leak.bytes_per_call == pytest.approx(1000)
    assert leak.low > 999
    assert memory.fit_slope(calls, [100.0] * len(calls)).high == 0


def test_wrong_results_and_foreign_errors_are_told_from_good_ones(load: Load) -> None:
    mutations, files = load("_reliability_mutations"), load("_reliability_files")
    end = load("_reliability_children").End
    checked, free = files.KINDS[0], files.KINDS[3]
    found = [
        mutations.judge(checked, end(how, value, 1.0), "abc")
        for how, value in [
            ("raised", ["CheckpointError", "text"]),
            ("raised", ["KeyError", "'text'"]),
            ("returned", ["abc", 0.1]),
            ("returned", ["abd", 0.1]),
            ("returned", ["abc", 21.0]),
            ("hung", None),
        ]
    ]
    assert found[:2] == ["clear error", "raised KeyError"]
    assert found[2:4] == ["same result", "other result, no error"]
    assert found[4:] == ["slow", "hung: None"]
    other = mutations.judge(free, end("returned", ["abd", 0.1], 1.0), "abc")
    assert other == "other data"


def test_payloads_would_run_if_they_were_unpickled(load: Load, tmp_path: Path) -> None:
    module, marker = load("_reliability_mutations"), tmp_path / "marker"
    path = tmp_path / "a.npy"
    rng = np.random.default_rng(0)
    while not path.exists() or not path.read_bytes().startswith(b"\x93NUMPY"):
        path.write_bytes(module.payload(marker, rng))
    assert not marker.exists()
    np.load(path, allow_pickle=True)
    assert marker.is_dir()


# ----------------------------------------------------------- by hypothesis


@pytest.mark.parametrize("ending", [".npy", ".tsv", ".csv", ".1D"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_scans_are_refused_or_read(
    load: Load, tmp_path: Path, ending: str, data: st.DataObject
) -> None:
    module = load("_reliability_mutations")
    folder = tmp_path / "cohort"
    if not folder.exists():
        load("_reliability_files").write_cohort(folder, 0)
    path = next(path for path in (folder / "fmri").iterdir() if path.suffix == ending)
    whole = path.read_bytes()
    damage = data.draw(st.sampled_from(list(module.MUTATIONS.values())))
    seed = data.draw(st.integers(0, 2**32 - 1))
    path.write_bytes(damage(whole, np.random.default_rng(seed)))
    said = ""
    try:
        for recording in check_cohort(load_cohort(folder), caller="The test").fmri:
            assert recording is not None
            assert np.isfinite(recording.read(None)).all()
    except BrainDataError as error:
        said = str(error)
    finally:
        path.write_bytes(whole)
    names = (path.name, "first in scan", "regions")  # the file, the scan, or all scans
    assert not said or any(name in said for name in names)
