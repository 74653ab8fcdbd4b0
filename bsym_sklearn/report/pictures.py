"""From Axes to images that a page carries within itself."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bsym_sklearn.plotting.axes import COLUMN_WIDTH
from bsym_sklearn.report.contents import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCALE = 115  # CSS pixels per inch: 8 points of paper are read from further away
MAX_VECTOR = 200_000  # bytes of an SVG; above, a PNG is smaller and draws faster
RESOLUTION = 180  # dots per inch of what has no vectors
N_COLORS = 256  # of pixels on paper: a third of the bytes, and the eye sees no change
# Names from a cohort are text, not formulas; ids are the same in every run.
STYLE = {"text.parse_math": False, "svg.fonttype": "path", "svg.hashsalt": "report"}
COMMENT = re.compile(rb"<!--.*?-->\s*", re.DOTALL)


def draw(
    plot: Callable[[Axes], Any],
    *,
    alt: str,
    caption: str,
    height: float = 2.4,
    width: float = COLUMN_WIDTH,
    on_paper: bool = False,
) -> Picture:
    """Return what a function draws into Axes as an image, whatever the user's style.

    Parameters
    ----------
    plot : callable
        Draws into the Axes that it is given.
    alt : str
        What there is to see, for those who do not.
    caption : str
        What stands under the picture.
    height, width : float, default=2.4, 3.5
        Inches.
    on_paper : bool, default=False
        Whether no colour may change where the page is dark. Always so for images.

    Returns
    -------
    Picture

    Examples
    --------
    >>> line = draw(lambda ax: ax.plot([1, 2]), alt="A line.", caption="A line.")
    >>> line.uri[:26], line.width, line.on_paper
    ('data:image/svg+xml;base64,', 402, False)
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        plot(figure.subplots())
        _write_plain_numbers(figure)
        on_paper = on_paper or _has_image(figure)
        data, kind = _encode(figure, on_paper)
        size = figure.get_size_inches()
    text = base64.b64encode(data).decode("ascii")
    return Picture(
        uri=f"data:{kind};base64,{text}",
        width=round(float(size[0]) * SCALE),
        height=round(float(size[1]) * SCALE),
        alt=alt,
        caption=caption,
        on_paper=on_paper,
    )


def _encode(figure: Figure, on_paper: bool) -> tuple[bytes, str]:
    """Return a figure as an SVG, or as a PNG if that is too large, and its type."""
    from PIL import Image  # a part of matplotlib

    file = io.BytesIO()
    options: dict[str, Any] = {"transparent": True, "dpi": RESOLUTION}
    figure.savefig(file, format="svg", metadata={"Date": None}, **options)
    vectors = COMMENT.sub(b"", file.getvalue())  # they repeat the names that are drawn
    if len(vectors) <= MAX_VECTOR:
        return vectors, "image/svg+xml"
    file = io.BytesIO()
    figure.savefig(file, format="png", **options | {"transparent": not on_paper})
    if on_paper:
        pixels = Image.open(file).convert("RGB").quantize(N_COLORS)
        file = io.BytesIO()
        pixels.save(file, "png", optimize=True)
    return file.getvalue(), "image/png"


def _write_plain_numbers(figure: Figure) -> None:
    """Let axes write powers of ten as text, as formulas are off."""
    from matplotlib.ticker import ScalarFormatter

    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, ScalarFormatter):
                formatter.set_useMathText(False)


def _has_image(figure: Figure) -> bool:
    """Say whether colours carry values, so that none of them may change."""
    from matplotlib.collections import QuadMesh

    return any(
        ax.images or any(isinstance(c, QuadMesh) for c in ax.collections)
        for ax in figure.axes
    )
