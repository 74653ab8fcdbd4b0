"""The page about what models learn, from folders of finished runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="no benchmarks here")


@pytest.fixture
def interpretation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import interpretation

    yield interpretation
    sys.modules.pop("interpretation")


def test_sections_stand_in_order_with_their_pictures(
    interpretation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "networks", "drug"):
        (tmp_path / name).mkdir()
    (tmp_path / "first" / "courses_regions.png").write_bytes(b"a picture")
    (tmp_path / "networks" / "networks_confusion.png").write_bytes(b"another")
    shown = "## n\n\n![its own](networks_confusion.png)"
    monkeypatch.setattr(
        interpretation,
        "reconstruction_section",
        lambda folder, with_printed: f"## {folder.name} {with_printed}\n",
    )
    monkeypatch.setattr(interpretation, "networks_section", lambda folder: shown)
    monkeypatch.setattr(interpretation, "psychedelic_section", lambda folder: "## d")
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    options = {
        "--document": [page],
        "--reconstruction": [tmp_path / "first", tmp_path / "second"],
        "--networks": [tmp_path / "networks"],
        "--psychedelic": [tmp_path / "drug"],
    }
    interpretation.main(
        [str(x) for name, paths in options.items() for x in (name, *paths)]
    )
    text = page.read_text()
    titles = [line for line in text.splitlines() if line.startswith("##")]
    assert titles == ["## first True", "## second False", "## n", "## d"]
    assert (
        text.count("courses_regions.png") == text.count("networks_confusion.png") == 1
    )
    assert (page.parent / "courses_regions.png").read_bytes() == b"a picture"
