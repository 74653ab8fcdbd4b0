"""Write the page about what models learn, from finished runs.

    python benchmarks/interpretation.py --document PAGE.md \
        --reconstruction FOLDER [FOLDER ...] --networks FOLDER --psychedelic FOLDER

Each folder is what the script of that name wrote; nothing is computed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from _networks_page import section as networks_section
from _psychedelic_page import section as psychedelic_section
from _reconstruction_page import section as reconstruction_section

from bsym_sklearn.analysis.store import write_atomically

HEAD = """\
# What the model learns

Written by `benchmarks/interpretation.py` from the runs that it names; nothing here is
typed by hand. The cohorts stay outside the repository, and are not the paper's: its
numbers (arXiv:2506.18314; read off its figures, or quoted, as each section says) are of
other people, another atlas and a larger model. They stand beside ours for orientation
and rank nothing. Beside every number of a trained model stand those of the same model
untrained and of a simple method.
"""


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    sections = [
        reconstruction_section(folder, with_printed=i == 0)
        for i, folder in enumerate(options.reconstruction)
    ]
    if options.networks is not None:
        sections.append(networks_section(options.networks))
    if options.psychedelic is not None:
        sections.append(psychedelic_section(options.psychedelic))
    parts = [HEAD, *(section.strip() + "\n" for section in sections)]
    write_atomically(options.document, "\n".join(parts))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--document", type=Path, required=True, help="page to write")
    add("--reconstruction", type=Path, nargs="*", default=[], metavar="FOLDER")
    add("--networks", type=Path, metavar="FOLDER")
    add("--psychedelic", type=Path, metavar="FOLDER")
    return command


if __name__ == "__main__":
    main()
