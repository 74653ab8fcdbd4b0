"""The page about accuracy, from the tables of finished benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsym_sklearn.analysis.store import write_atomically

HEAD = """\
# Accuracy

Written by `benchmarks/accuracy.py` from the runs that it names; nothing here is typed
by hand. The cohorts stay outside the repository. Mean ± standard deviation over the
test folds, seeds averaged within a fold first.
"""


def write_page(page: Path, results: Path, names: Sequence[str]) -> None:
    """Write one section per benchmark that is finished."""
    sections = [HEAD]
    for name in names:
        folder = results / name
        if (folder / "table.md").exists():
            settings = json.loads((folder / "settings.json").read_text())
            sections.append(_section(name, settings, (folder / "table.md").read_text()))
    write_atomically(page, "\n".join(sections))


def _section(name: str, settings: dict[str, Any], table: str) -> str:
    """Return the section of one benchmark."""
    options = settings["options"]
    lines = [
        f"## {name}",
        "",
        f"`python benchmarks/accuracy.py --only {name}`: {settings['n_scans']} scans "
        f"of {settings['n_groups']} groups, {len(settings['splits'])} splits, windows "
        f"of {options['window']} time points, at most {options['max_epochs']} epochs "
        f"with targets and {options['pretrain_epochs']} without; commit "
        f"`{str(settings['commit'])[:7]}`.",
        "",
        table,
    ]
    return "\n".join(lines)
