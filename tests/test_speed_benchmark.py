"""benchmarks/speed.py is run at tiny sizes, and its page made of known numbers."""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("numba", reason="the compiled kernel needs numba")
pytest.importorskip("matplotlib", reason="the plot needs matplotlib")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
COLUMNS = ["work", "variant", "R", "T", "B", "threads", "seconds_median", "q1", "q3"]
COLUMNS += ["n", "extra_mb", "ratio_to_reference", "memory_ratio_to_reference"]
COLUMNS += ["value", "unit"]
FACTS = {
    "machine": {
        "cpu": "Some CPU",
        "cpus": 3,
        "system": "System",
        "python": "3.99.1",
        "sizes": "published",
        "versions": {"torch": "9.8.7", "numba": None},
    },
    "runs": [
        {
            "date": "2031-05-06",
            "commit": "abc",
            "reference_commit": "def",
            "threads": 1,
            "clock": "CPU time of the process",
            "repeats": 5,
            "only": ["official"],
            "load_at_start": 0.25,
        }
    ],
}

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def quick(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """Return a function that runs the script, without processes of its own."""
    speed = load("speed")
    here = speed.machine()  # of one moment: someone may be editing the code
    monkeypatch.setattr(speed, "machine", lambda: here)
    monkeypatch.setattr(load("_speed_jobs"), "in_fresh_process", lambda *_: 2.5)

    def run(*options: str) -> list[dict[str, str]]:
        arguments = ["--quick", "--repeats", "2", "--output", str(tmp_path), *options]
        speed.main(arguments)
        with (tmp_path / "speed.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def test_every_part_runs_and_leaves_whole_rows(quick, tmp_path) -> None:
    page = tmp_path / "page" / "speed.md"
    rows = quick("--document", str(page))
    assert list(rows[0]) == COLUMNS
    timed = [row for row in rows if row["seconds_median"]]
    for row in timed:
        q1, median, q3 = (float(row[name]) for name in ("q1", "seconds_median", "q3"))
        assert 0 < q1 <= median <= q3, row
        assert row["n"] == ("1" if row["work"].startswith("5-fold") else "2"), row
    assert all(row["value"] and row["unit"] for row in rows if row not in timed)
    works = {(row["work"], row["variant"]) for row in rows}
    for work in ("fMRI forward", "fMRI forward + backward", "fMRI training step"):
        assert {(work, "torch"), (work, "compiled")} <= works
    assert ("embed one scan", "Brain-JEPA stand-in") in works
    assert ("share of the limit, fMRI forward", "compiled") in works
    assert ("exponent of R, fMRI forward", "torch") in works
    assert len({tuple(row.values())[:6] for row in rows}) == len(rows)
    facts = json.loads((tmp_path / "machine.json").read_text())
    assert facts["runs"][0]["clock"] == "CPU time of the process"
    assert facts["machine"]["versions"]["torch"] == torch.__version__
    assert page.read_text().startswith("# Speed\n")
    assert "none of this is a result" in page.read_text()
    for folder in (tmp_path, page.parent):
        assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_goes_on_where_it_was(quick, load, monkeypatch, capsys) -> None:
    jobs = load("_speed_jobs")
    alternate, done = jobs.alternate, []

    def killed(calls, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(tuple(calls))
        return alternate(calls, *rest)

    monkeypatch.setattr(jobs, "alternate", killed)
    with pytest.raises(KeyboardInterrupt):
        quick("--only", "official")
    done.clear()
    capsys.readouterr()
    monkeypatch.setattr(jobs, "alternate", lambda *a: done.append(a) or alternate(*a))
    first = quick("--only", "official")
    assert len(done) == 4
    assert capsys.readouterr().out.startswith("[3/6] fMRI training step")
    assert quick("--only", "official") == first
    assert len(done) == 4


def test_results_of_other_code_are_not_mixed(quick, load, monkeypatch) -> None:
    quick("--only", "limits")
    speed = load("speed")
    other = {**speed.machine(), "code": "other"}
    monkeypatch.setattr(speed, "machine", lambda: other)
    with pytest.raises(SystemExit, match=r"are of other code\. Name another --output"):
        quick("--only", "imports")
    quick("--only")  # nothing is measured, so nothing is mixed
    quick("--only", "imports", "--fresh")


def test_what_cannot_be_done_is_said_at_once(quick, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        quick("--reference", str(tmp_path))
    assert "--reference needs a folder with models/" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        quick("--only")
    assert "--only without a part needs earlier results" in capsys.readouterr().err


def test_exponents_are_those_of_the_data(load) -> None:
    table, plan = load("_speed_table"), load("_speed_plan").FULL
    times = [(200, 1.0), (400, 2.0), (1200, 6.0)]
    regions = [(100, 0.05), (200, 0.2), (1000, 5.0)]
    rows = [
        *(table.Row("fMRI forward", "torch", 450, t, 1, 1, s) for t, s in times),
        *(table.Row("fMRI forward", "torch", r, 200, 1, 1, s) for r, s in regions),
    ]
    rows[0] = rows[0]._replace(seconds_median=0.0005 * 450**2 / 100)
    derived = {row.work: row for row in load("_speed_derived").derive(rows, plan)}
    assert derived["exponent of R, fMRI forward"].value == pytest.approx(2, abs=0.03)
    assert derived["exponent of R, fMRI forward"].n == 4
    assert derived["exponent of T, fMRI forward"].value == pytest.approx(1, abs=0.03)
    assert derived["exponent of T, fMRI forward"].n == 3
    assert "exponent of B, fMRI forward" not in derived
    fit = load("_speed_derived").fit_exponent
    assert fit([1, 2, 4], [3, 3 * 2**1.5, 3 * 4**1.5]) == pytest.approx(1.5)


def test_table_keeps_what_it_was_given(load, tmp_path) -> None:
    table = load("_speed_table")
    row = table.Row("work, with comma", "torch", 3, None, 1, 1, 0.25, 0.125, 0.5, 7)
    number = table.Row("number", "any", value=1.5, unit="%")
    first = table.Table(tmp_path / "speed.csv")
    first.put([row])
    first.put([number, row._replace(n=8)])
    again = table.Table(tmp_path / "speed.csv")
    assert again.rows == [row._replace(n=8), number]
    assert again.has([row.key, number.key])
    assert not again.has([row._replace(threads=2).key])
    assert [path.name for path in tmp_path.iterdir()] == ["speed.csv"]


def test_page_has_no_number_but_those_of_the_table(load, tmp_path) -> None:
    page, table = load("_speed_page"), load("_speed_table")
    plan, targets = load("_speed_plan").FULL, load("_speed_targets")
    rows = list(synthetic_rows(load))
    rows += load("_speed_derived").derive(rows, plan)
    page.write_page(rows, FACTS, plan, tmp_path / "speed.md")
    text = (tmp_path / "speed.md").read_text()
    numbers = [n for row in rows for n in row if isinstance(n, int | float)]
    numbers += all_numbers(targets)
    sources = [*map(page.number, numbers), json.dumps(FACTS)]
    sources += [f"{row.work} {row.variant}" for row in rows]
    known = {n for source in sources for n in numbers_in(source)}
    assert set(numbers_in(text)) <= known
    assert "none of this is a result" not in text
    assert text.count("reached") > 3
    assert text.count("missed") > 3
    for row in rows:
        shown = row.seconds_median if row.value is None else row.value
        assert page.number(shown) in text, row
    assert table.Row("a", "b").key == ("a", "b", None, None, None, None)


def synthetic_rows(load: Load):
    """Yield one row of everything with values that occur nowhere else."""
    plans, works, jobs = load("_speed_plan"), load("_speed_works"), load("_speed_jobs")
    how = jobs.Context(Path("nowhere"), 1, 7)
    for i, job in enumerate(jobs.make_jobs(plans.FULL, jobs.GROUPS, how)):
        for j, key in enumerate(job.keys):
            seed = 1.2345 + 0.137 * i + 0.0171 * j
            row = load("_speed_table").Row(*key, seed, seed - 0.1, seed + 0.1, 7)
            if key[0] in (jobs.COUNTED, jobs.DIFFERENCE):
                row = row._replace(seconds_median=None, q1=None, q3=None, n=None)
            if key[0] in (jobs.COUNTED, jobs.DIFFERENCE, jobs.LIMIT):
                row = row._replace(value=100 * seed, unit="unit")
            elif key[0] in (*works.FMRI_WORKS, *works.SC_WORKS, works.EMBED):
                row = row._replace(
                    extra_mb=71 * seed,
                    ratio_to_reference=3.3 * seed,
                    memory_ratio_to_reference=7.7 * seed,
                )
            yield row


def numbers_in(text: str) -> list[str]:
    """Return every number that is not a part of a word such as float32."""
    return re.findall(r"(?<![\w.])\d+(?:\.\d+)*(?:e-\d+)?(?![\w])", text)


def all_numbers(module: ModuleType) -> list[float]:
    """Return all targets."""
    found: list[float] = []
    for name, value in vars(module).items():
        if name.isupper():
            todo = [value]
            while todo:
                one = todo.pop()
                if isinstance(one, dict):
                    todo += one.values()
                elif isinstance(one, tuple):
                    todo += one
                elif isinstance(one, int | float):
                    found.append(one)
    return found


def test_official_files_are_imported_without_the_package_that_fails(
    load, tmp_path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "__init__.py").write_text("raise ImportError('as published')\n")
    (models / "part.py").write_text("VALUE = 3\n")
    (models / "whole.py").write_text("from .part import VALUE\n")
    before = sorted(path.name for path in models.iterdir())
    module = load("_speed_official").official_module(tmp_path, "whole")
    assert module.VALUE == 3
    assert sorted(path.name for path in models.iterdir()) == before


def test_stand_ins_have_the_published_sizes(load) -> None:
    stand_ins = load("_speed_standins")
    sizes = {}
    for name in ("BRAINLM", "BRAIN_JEPA"):
        with torch.device("meta"):
            model = stand_ins.StandIn(getattr(stand_ins, name))
        n_parameters = sum(p.numel() for p in model.parameters())
        sizes[name] = (round(n_parameters / 1e6, 1), model.shape.n_tokens)
    assert sizes == {"BRAINLM": (86.2, 730), "BRAIN_JEPA": (86.8, 4500)}


def test_both_paths_do_the_same_work(load) -> None:
    works = load("_speed_works")
    for work in (works.FORWARD, works.SC_STEP):
        cell = works.Cell(work, 7, 11, 2, depth=1)
        subject = works.make_subject(cell, works.TORCH)
        predicted = subject.predict()
        assert predicted.shape == subject.target.shape, work
    call = works.make_calls(cell._replace(work=works.BACKWARD), works.OURS)
    losses = {name: one() for name, one in call.items()}
    assert losses["torch"] == pytest.approx(losses["compiled"], rel=1e-5)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of pages"
)
def test_extra_memory_is_that_of_the_work_alone(load) -> None:
    memory = load("_speed_memory")
    bytearray(200_000_000)  # an earlier peak
    memory.reset_peak()
    before = memory.peak_mb()
    bytearray(50_000_000)
    assert memory.peak_mb() - before == pytest.approx(50, abs=5)


def test_memory_is_measured_in_a_process_of_its_own(load) -> None:
    works = load("_speed_works")
    cell = works.Cell(works.SC_STEP, 60, 16, 1, depth=1)
    argument = {"cell": cell, "variant": "torch", "reference": None, "threads": 1}
    grown = load("_speed_measure").in_fresh_process("_speed_memory.py", argument, 1)
    assert 0 < grown < 200
