"""Write one page from finished runs of the scripts on the paper's tasks.

    python benchmarks/paper_page.py --results FOLDER --document PAGE.md

FOLDER holds a folder per run: the --out of `paper.py`, `low_data.py`, `transfer.py`,
`missing_modality.py`, `ablations.py` and `harmonisation.py`. Nothing is computed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bsym_sklearn.files import write_atomically

TITLES = {
    "paper": "fMRI, connectome or both; probed or fine-tuned",
    "low_data": "Few people to learn from",
    "transfer": "Pretrained elsewhere",
    "missing_modality": "A modality that is missing",
    "ablations": "What each part is worth",
    "harmonisation": "Sites, before and after harmonisation",
}
HEAD = """\
# The paper's tasks

Written by `benchmarks/paper_page.py` from the runs that it names; nothing here is typed
by hand. Public cohorts of the paper's size are not at hand: these are small ones, with
models of the size "small" and, unless said otherwise, one seed, so that a row is a lead
more than a result. Mean ± standard deviation over the test folds; tests are corrected
for overlapping training rows, p adjusted over the rows of a table (Holm).

"""


@dataclass(frozen=True)
class Run:
    """One table: where it lies, and what it was made with."""

    folder: Path
    settings: dict[str, Any]

    @property
    def script(self) -> str:
        """Name of the script, without its ending."""
        return Path(self.settings["command"].split()[0]).stem


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    runs = sorted(find_runs(options.results), key=lambda r: [*TITLES].index(r.script))
    options.document.parent.mkdir(parents=True, exist_ok=True)
    parts, said = [HEAD], set()
    for run in runs:
        if run.script not in said:
            parts.append(f"## {TITLES[run.script]}\n")
        said.add(run.script)
        parts.append(section(run, options.document))
    write_atomically(options.document, "\n".join(parts))


def find_runs(results: Path) -> Iterator[Run]:
    """Yield the finished runs below a folder, curves once for all their shares."""
    found = set()
    for path in sorted(results.glob("**/settings.json")):
        settings = json.loads(path.read_text())
        folder = path.parent
        if (folder.parent / "curves.md").exists():
            folder = folder.parent
        run = Run(folder, settings)
        if run.script in TITLES and folder not in found:
            found.add(folder)
            yield run


def section(run: Run, page: Path) -> str:
    """Return the command, the table and the picture of a run."""
    options, settings = run.settings["options"], run.settings
    cohort = Path(options["cohort"]).name
    lines = [
        f"### {settings['task']} of {cohort}",
        "",
        f"`python {command(settings['command'])}`: {settings['n_scans']} scans of "
        f"{settings['n_groups']} people, {len(settings['splits'])} splits, "
        f"{len(options.get('seeds', [0]))} seed(s); fits of {', '.join(commits(run))}.",
        "",
    ]
    curves = run.folder / "curves.md"
    if not curves.exists():
        return "\n".join([*lines, (run.folder / "table.md").read_text()])
    lines.append(curves.read_text())
    picture = run.folder / "curves.png"
    if picture.exists():
        name = f"{page.stem}_{run.script}_{cohort}.png"
        shutil.copyfile(picture, page.parent / name)
        lines.append(f"![{TITLES[run.script]}]({name})\n")
    return "\n".join(lines)


def command(line: str) -> str:
    """Return a command line with names instead of places, without --out.

    Examples
    --------
    >>> command("a/low_data.py --cohort data/x --out runs/y --only 'no gate'")
    "benchmarks/low_data.py --cohort x --only 'no gate'"
    """
    words = [Path(word).name if "/" in word else word for word in shlex.split(line)]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join([f"benchmarks/{words[0]}", *words[1:]])


def commits(run: Run) -> list[str]:
    """Return the commits of the fits of a run."""
    paths = sorted(run.folder.glob("**/cells.csv"))
    tables = [pd.read_csv(path, dtype={"commit": str}) for path in paths]
    return sorted({str(c)[:7] for table in tables for c in table["commit"]})


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--results", type=Path, required=True, help="folder of finished runs")
    add("--document", type=Path, required=True, help="page to write")
    return command


if __name__ == "__main__":
    main()
