"""Write the page about what models learn, from finished runs.

    python benchmarks/interpretation.py --document PAGE.md \
        --reconstruction FOLDER [FOLDER ...] --networks FOLDER --psychedelic FOLDER

Each folder is what the script of that name wrote; nothing is computed here.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from _networks_page import section as networks_section
from _psychedelic_page import section as psychedelic_section
from _reconstruction_page import section as reconstruction_section

from bsym_sklearn.files import write_atomically

HEAD = """\
# What the model learns

Written by `benchmarks/interpretation.py` from the runs that it names; nothing here is
typed by hand. The cohorts stay outside the repository, and are not the paper's: its
numbers (arXiv:2506.18314; read off its figures, or quoted, as each section says) are of
other people, another atlas and a larger model. They stand beside ours for orientation
and rank nothing. Beside every number of a trained model stand those of the same model
untrained and of a simple method.
"""


# Copied beside the page, and shown at the end of a section unless it shows them itself.
PICTURES = {
    "courses_regions.png": "Time courses of hidden regions, and their reconstruction",
    "networks_confusion.png": "Which networks are taken for which",
    "spatial_blocks.png": "Attention between lobes, psilocybin minus placebo",
    "connectivity_regions.png": "Strength of connectivity, psilocybin minus placebo",
}


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    page = options.document
    parts = [HEAD]
    for i, folder in enumerate(options.reconstruction):
        text = reconstruction_section(folder, with_printed=i == 0)
        parts.append(text if i else with_pictures(text, folder, page))
    if options.networks is not None:
        text = networks_section(options.networks)
        parts.append(with_pictures(text, options.networks, page))
    if options.psychedelic is not None:
        text = psychedelic_section(options.psychedelic)
        parts.append(with_pictures(text, options.psychedelic, page))
    write_atomically(page, "\n\n".join(part.strip() for part in parts) + "\n")


def with_pictures(text: str, folder: Path, page: Path) -> str:
    """Copy the pictures of a section beside the page; return it with them."""
    for name, says in PICTURES.items():
        if (folder / name).exists():
            shutil.copyfile(folder / name, page.parent / name)
            if f"({name})" not in text:
                text = f"{text.strip()}\n\n![{says}]({name})\n"
    return text


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
