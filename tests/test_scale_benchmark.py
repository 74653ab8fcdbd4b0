"""benchmarks/scale.py is run at tiny sizes, and goes on where it was."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
SECTIONS = ["How to store many scans", "Constant memory", "Reading", "Training"]
SECTIONS += ["Cost model", "A plan for 40,000 scans and 8 devices"]
SECTIONS += ["How it was measured", "Again"]


@pytest.mark.slow
def test_all_parts_run_are_kept_and_make_a_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    scale = importlib.import_module("scale")
    jobs = importlib.import_module("_scale_child").JOBS
    asked: list[str] = []

    def here(script: str, argument: dict[str, Any], threads: int) -> Any:
        assert (BENCHMARKS / script).is_file()
        argument = dict(argument)
        assert argument.pop("threads") == threads
        asked.append(argument.pop("job"))
        return json.loads(json.dumps(jobs[asked[-1]](**argument)))

    monkeypatch.setattr(scale, "in_fresh_process", here)
    page = tmp_path / "page.md"
    options = ["--quick", "--out", str(tmp_path / "out"), "--document", str(page)]
    scale.main([*options, "--device-rates", "20"])
    assert sorted(set(asked)) == ["cost", "reading", "storage", "training"]
    text = page.read_text()
    assert re.findall("^## (.*)", text, re.MULTILINE) == SECTIONS
    assert "**No GPU was measured.**" in text
    assert not re.search(r"\bnan\b|\binf\b|\{|None\b", text)
    assert not (tmp_path / "out" / "generated").exists()
    n_asked = len(asked)
    scale.main([*options, "--device-rates", "20"])
    assert len(asked) == n_asked
    assert page.read_text() == text


def test_the_plan_is_computed_from_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    page = importlib.import_module("_scale_page")
    size = {"wall_s": 1.0, "cpu_s": 0.5, "n_parameters": 10_000_000}
    results = {
        "plan": {"window": 100, "n_regions": 250},
        "cost": {**dict.fromkeys(("small", "base", "large"), size), "window_s": 0.003},
        "machine": {
            **dict.fromkeys(("cpu", "system", "python"), "x"),
            "cpus": 2,
            "versions": {"torch": "9.8"},
        },
        "runs": {"cost": {"date": "2031-05-06", "commit": "abc", "load": 0.5}},
    }
    page.write_page(results, [1000.0], tmp_path / "page.md")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (tmp_path / "page.md").read_text().splitlines()
        if line.startswith("|")
    ]
    # 40,000 scans x 100 epochs x 0.5 s / 8 processes
    assert rows[2] == ["small", "10,000,000", "0.5", "1", "2.89"]
    # a step of 16 scans takes 16 ms, and 70 MB are exchanged in 7 ms
    e = 16 / 23
    speed = 8 * 1000 * e
    found = next(row for row in rows if row[0] == "1000")
    assert found[1:] == [
        f"{e:.2f}",
        f"{40_000 / speed:.3g} s",
        f"{4_000_000 / speed / 60:.3g} min",
        f"{speed * 0.1:.0f}",
        "3",
    ]
