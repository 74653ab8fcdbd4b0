"""One colour per network, the same in every picture."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Okabe & Ito (2008), Color Universal Design; grey in place of black.
PALETTE = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#8C8C8C",
)


def network_colors(networks: Iterable[str]) -> dict[str, str]:
    """Return a colour for each network, in the order of their names.

    Parameters
    ----------
    networks : iterable of str
        Names, each as often as wanted. Beyond eight, colours come again.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> network_colors(["Vis", "Limbic", "Vis"])
    {'Limbic': '#E69F00', 'Vis': '#56B4E9'}
    """
    names = np.unique(np.asarray(list(networks), dtype=str)).tolist()
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
