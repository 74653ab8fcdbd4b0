"""Results as matplotlib Axes; nothing is computed here.

Colours can be told apart by the colour-blind, and in grey. Every function draws into
the Axes that it is given, or into a new figure of the width of a paper's column.
"""

from bsym_sklearn.plotting.attention import plot_attention
from bsym_sklearn.plotting.brains import (
    plot_glass_brain,
    plot_surface,
)
from bsym_sklearn.plotting.chords import plot_chord
from bsym_sklearn.plotting.comparison import (
    plot_comparison,
    plot_critical_differences,
    plot_forest,
)
from bsym_sklearn.plotting.contrast import plot_contrast
from bsym_sklearn.plotting.cost import plot_cost
from bsym_sklearn.plotting.embedding_maps import (
    plot_drift,
    plot_projection,
)
from bsym_sklearn.plotting.networks import (
    plot_confusion,
    plot_network_blocks,
)
from bsym_sklearn.plotting.radar import plot_radar
from bsym_sklearn.plotting.reconstruction import plot_reconstruction
from bsym_sklearn.plotting.regions import (
    plot_gate,
    plot_incoming,
    plot_network_bars,
)
from bsym_sklearn.plotting.series import (
    plot_carpet,
    plot_connectomes,
    plot_time_courses,
    plot_weight_distribution,
)
from bsym_sklearn.plotting.training import plot_training

__all__ = [
    "plot_attention",
    "plot_carpet",
    "plot_chord",
    "plot_comparison",
    "plot_confusion",
    "plot_connectomes",
    "plot_contrast",
    "plot_cost",
    "plot_critical_differences",
    "plot_drift",
    "plot_forest",
    "plot_gate",
    "plot_glass_brain",
    "plot_incoming",
    "plot_network_bars",
    "plot_network_blocks",
    "plot_projection",
    "plot_radar",
    "plot_reconstruction",
    "plot_surface",
    "plot_time_courses",
    "plot_training",
    "plot_weight_distribution",
]
