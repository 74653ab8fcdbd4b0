"""Help, information, the report, and what every command does alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import bsym_sklearn
from bsym_sklearn.cli import main
from bsym_sklearn.cli.command import EXIT_CODES
from bsym_sklearn.cli.main import bsym

COMMANDS = ["info", "pretrain", "embed", "evaluate", "compare", "report"]
ROOT = Path(bsym_sklearn.__file__).parents[1]


def test_commands_are_in_the_order_of_their_use(run) -> None:
    text = run("--help").stdout
    assert list(bsym.commands) == COMMANDS
    assert [text.index(f"\n  {name} ") for name in COMMANDS] == sorted(
        text.index(f"\n  {name} ") for name in COMMANDS
    )
    assert "..." not in text.split("Commands:")[1]  # no sentence is cut
    for code in {*EXIT_CODES.values(), 0, 2, 130}:
        assert f"\n    {code} " in text
    assert run("--version").stdout == f"bsym, version {bsym_sklearn.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_and_has_examples(run, name) -> None:
    text = run(name, "--help").stdout
    assert f"\nExamples:\n  bsym {name} " in text
    for param in bsym.commands[name].params:
        if isinstance(param, click.Option):
            assert param.help or isinstance(param.type, click.Choice), param.name
    assert max(map(len, text.splitlines())) <= 100


def test_examples_name_options_that_there_are(run) -> None:
    for name, command in bsym.commands.items():
        known = {opt for param in command.params for opt in param.opts} | {"--help"}
        for line in command.epilog.strip().splitlines():
            words = line.split(f" {name} ")[1].split()
            assert {word for word in words if word[:2] == "--"} <= known, line


def test_help_needs_no_torch() -> None:
    # the package itself, which imports torch, is only found, not imported
    code = (
        "import sys, types\n"
        "package = types.ModuleType('bsym_sklearn')\n"
        f"package.__path__ = [{str(ROOT / 'bsym_sklearn')!r}]\n"
        "sys.modules['bsym_sklearn'] = package\n"
        "from bsym_sklearn.cli.main import bsym\n"
        "bsym(['pretrain', '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn', 'nilearn', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_and_an_unforeseen_error_is_one_paragraph(folder) -> None:
    command = [sys.executable, "-m", "bsym_sklearn.cli", "info", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.startswith("kind ")
    assert run.stderr == ""


def test_an_unforeseen_error_is_one_paragraph(capsys) -> None:
    main._say_unexpected(KeyError, KeyError("net_"), None)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(
        "Error: unexpected KeyError: 'net_'. Run it with --debug"
    )


def test_what_is_in_a_cohort(run, folder) -> None:
    facts = json.loads(run("info", folder, "--json").stdout)
    counts = ("scans", "participants", "regions", "fmri", "sc", "both")
    assert [facts[name] for name in counts] == [12, 6, 5, 12, 9, 9]
    assert facts["time points"] == "40"
    assert facts["columns"]["state"] in ("rest (6), task (6)", "task (6), rest (6)")
    text = run("info", folder).stdout
    assert "scans that cannot be used    none" in text


def test_problems_of_a_cohort_are_listed(run, folder, tmp_path) -> None:
    broken = tmp_path / "cohort"
    shutil.copytree(folder, broken)
    series = np.load(broken / "fmri" / "2.npy")
    series[3, 1] = np.nan
    np.save(broken / "fmri" / "2.npy", series)
    (broken / "fmri" / "4.npy").write_bytes(b"not an array")
    facts = json.loads(run("info", broken, "--json").stdout)
    problems = facts["scans that cannot be used"]
    assert [(p["scan"], p["participant"]) for p in problems] == [(2, "p1"), (4, "p2")]
    assert "finite values" in problems[0]["reason"]
    assert all("make_report" not in p["reason"] for p in problems)
    assert "finite values" in run("info", broken).stdout


def test_what_is_in_a_model(run, embedder) -> None:
    facts = json.loads(run("info", embedder, "--json").stdout)
    assert facts["class"] == "BrainSymphonyEmbedder"
    assert facts["participants seen"] == 6
    assert (facts["regions"], facts["epochs"]) == (5, 1)
    assert facts["versions"]["bsym_sklearn"] == bsym_sklearn.__version__
    text = run("info", embedder).stdout
    assert "modalities            fmri, sc" in text
    assert "  dim                   8" in text


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("a.tsv", "participant_id\tpath\na\tb.npy\n", 3, "a column 'fmri' or 'sc'"),
        ("a.tsv", "fmri\nmissing.npy\n", 3, "missing.npy"),
        ("a.tsv", "", 3, "tab-separated table"),
        ("a.csv", "fmri,fmri\na,b\n", 3, "columns of different names"),
        ("a.csv", "fmri\n../../etc/passwd\n", 3, "passwd"),
        ("a.csv", "fmri\n\x00\n", 3, ""),
        ("a.xlsx", "x", 2, "A table of scans is a .parquet, .tsv or .csv file."),
        ("config.json", "{}", 3, "participants.tsv"),
    ],
)
def test_what_is_no_cohort_is_named(
    run, tmp_path, name, content, code, message
) -> None:
    (tmp_path / name).write_text(content)
    path = tmp_path if name == "config.json" else tmp_path / name
    if name == "config.json":
        path = tmp_path / "folder"
        path.mkdir()
    result = run("info", path, code=code)
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_cohort_is_named_once(run, folder, tmp_path) -> None:
    assert "Name a cohort" in run("info", code=2).stderr
    assert (
        "Name a cohort" in run("info", folder, "--derivatives", tmp_path, code=2).stderr
    )
    assert "does not exist" in run("info", tmp_path / "none", code=2).stderr


def test_outputs_of_pipelines_are_read(run, tmp_path, rng) -> None:
    for i in range(2):
        place = tmp_path / f"sub-{i}" / "func"
        place.mkdir(parents=True)
        for task in ("rest", "nback"):
            stem = f"sub-{i}_task-{task}_space-x_atlas-Tiny_stat-mean_timeseries"
            rows = "\n".join("\t".join(map(str, r)) for r in rng.normal(size=(20, 3)))
            (place / f"{stem}.tsv").write_text(f"a\tb\tc\n{rows}\n")
            (place / f"{stem}.json").write_text('{"RepetitionTime": 2.0}')
    given = ("info", "--derivatives", tmp_path, "--atlas", "Tiny", "--json")
    facts = json.loads(run(*given, "--entity", "task=rest").stdout)
    assert (facts["scans"], facts["participants"], facts["regions"]) == (2, 2, 3)
    assert "Write KEY=VALUE" in run(*given, "--entity", "task", code=2).stderr
    run("info", "--derivatives", tmp_path, "--atlas", "Other", code=3)


def test_a_page_is_written_once(run, folder, classifier, tmp_path) -> None:
    pytest.importorskip("jinja2", reason="the report needs jinja2")
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    out = tmp_path / "page.html"
    given = ("report", folder, "--model", classifier, "--out", out, "--max-scans", 2)
    result = run(*given, "--target", "state", "--title", "<b>Mine</b>")
    assert result.stdout == f"{out}\n"
    assert "&lt;b&gt;Mine&lt;/b&gt;" in out.read_text()
    assert "is there already" in run(*given, code=2).stderr


def test_quiet_hides_warnings_and_not_errors(run, folder, embedder, tmp_path) -> None:
    given = ("embed", folder, "--model", embedder, "-q", "--out")
    assert run(*given, tmp_path / "a.tsv").stderr == ""
    assert "is there already" in run(*given, tmp_path / "a.tsv", code=2).stderr
