"""What the tests of several pictures ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def fits_its_figure() -> Callable[[Any], bool]:
    """Say whether all that is drawn lies within the edges of the figure."""

    def fits(ax: Any) -> bool:
        figure = ax.figure
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        inside = drawn.x1 <= width and drawn.y1 <= height
        return min(drawn.x0, drawn.y0) >= 0 and inside

    return fits
