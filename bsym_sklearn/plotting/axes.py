"""What all pictures share: matplotlib on demand, one width, one set of colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN_WIDTH = 3.5  # inches, of a paper's column
FONT_SIZE = 8  # points
# Okabe & Ito (2008), Color Universal Design.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"


def make_axes(ax: Axes | None, height: float) -> Axes:
    """Return `ax`, or the Axes of a new figure of one column's width.

    Parameters
    ----------
    ax : matplotlib Axes or None
        Where to draw.
    height : float
        Of a new figure, in inches.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from bsym_sklearn.plotting.axes import make_axes
    >>> width, height = make_axes(None, 2.0).figure.get_size_inches()
    >>> float(width), float(height)
    (3.5, 2.0)
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "The pictures need matplotlib. Install it with: "
            'pip install "bsym_sklearn[plot]"'
        ) from error
    size = (COLUMN_WIDTH, height)
    return plt.subplots(figsize=size, layout="constrained")[1]


def tidy(ax: Axes) -> None:
    """Set small type and leave out the frame on two sides.

    Parameters
    ----------
    ax : matplotlib Axes
        Changed in place.

    Examples
    --------
    >>> from bsym_sklearn.plotting.axes import make_axes, tidy
    >>> ax = make_axes(None, 2.0)
    >>> tidy(ax)
    >>> ax.spines["top"].get_visible()
    False
    """
    ax.tick_params(labelsize=FONT_SIZE - 1)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set_fontsize(FONT_SIZE)
    ax.spines[["top", "right"]].set_visible(False)


def add_colorbar(ax: Axes, image: Any, label: str, extend: str = "neither") -> None:
    """Put the scale of an image beside it.

    Parameters
    ----------
    ax : matplotlib Axes
        Holds the image.
    image : matplotlib AxesImage
        What the scale belongs to.
    label : str
        Quantity and unit.
    extend : {"neither", "both", "min", "max"}, default="neither"
        Ends at which values go beyond the scale.

    Examples
    --------
    >>> from bsym_sklearn.plotting.axes import add_colorbar, make_axes
    >>> ax = make_axes(None, 2.0)
    >>> add_colorbar(ax, ax.imshow([[0, 1]]), "z-score")
    >>> len(ax.figure.axes)
    2
    """
    bar = ax.figure.colorbar(image, ax=ax, extend=extend, shrink=0.8)
    bar.set_label(label, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    bar.outline.set_visible(False)
