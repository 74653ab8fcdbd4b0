"""Results as matplotlib Axes; nothing is computed here.

Colours can be told apart by the colour-blind, and in grey. Every function draws into
the Axes that it is given, or into a new figure of the width of a paper's column.
"""

from bsym_sklearn.plotting.attention import plot_attention
from bsym_sklearn.plotting.comparison import (
    plot_comparison,
    plot_critical_differences,
    plot_forest,
)
from bsym_sklearn.plotting.cost import plot_cost
from bsym_sklearn.plotting.reconstruction import plot_reconstruction
from bsym_sklearn.plotting.training import plot_training

__all__ = [
    "plot_attention",
    "plot_comparison",
    "plot_cost",
    "plot_critical_differences",
    "plot_forest",
    "plot_reconstruction",
    "plot_training",
]
