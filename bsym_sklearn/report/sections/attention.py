"""Who attends to whom, in each stream of the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.attention import (
    gate_values,
    incoming,
    network_bars,
    network_blocks,
    outgoing,
    top_edges,
)
from bsym_sklearn.estimators.backbone import BaseBrainSymphony
from bsym_sklearn.plotting.attention import plot_attention
from bsym_sklearn.plotting.brains import plot_glass_brain
from bsym_sklearn.plotting.chords import plot_chord
from bsym_sklearn.plotting.networks import plot_network_blocks
from bsym_sklearn.plotting.regions import plot_gate, plot_incoming, plot_network_bars
from bsym_sklearn.report.contents import (
    Heading,
    Part,
    Picture,
    Pictures,
    Section,
    brief,
    listed,
    make_table,
    plural,
    write_range,
)
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.pictures import draw

STREAMS = {"spatial": "fmri", "structural": "sc"}
N_EDGES = 20
LABEL = "incoming attention (average 1)"
EDGE_NAMES = {
    "source": "attends",
    "source_network": "its network",
    "target": "is attended to",
    "target_network": "network of that",
    "weight": "weight",
}
FORMATS = {
    "incoming": ".2f",
    "SD over scans": ".2f",
    "outgoing": ".3f",
    "weight": ".3g",
    "share of fmri": ".3f",
}


def describe_attention(material: Material) -> Section | None:
    """Return the section on attention, None for a model that is no BrainSymphony.

    Parameters
    ----------
    material : Material
        What the page is made from.

    Returns
    -------
    Section or None

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> from bsym_sklearn.report.material import make_material
    >>> cohort = make_cohort(n_scans=8, n_regions=3)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> material = make_material(model, cohort.data)
    >>> describe_attention(material) is None
    True
    """
    model = material.estimator
    if not isinstance(model, BaseBrainSymphony):
        return None
    there = material.scans.table.iloc[material.rows]
    parts: list[Part] = []
    for stream, modality in STREAMS.items():
        if modality in model.modalities_ and there[modality].any():
            parts += _of_stream(material, stream)
    if len(model.modalities_) > 1 and (there["fmri"] & there["sc"]).any():
        parts += _gate(material)
    return Section(
        key="attention",
        title="Attention",
        shows=f"How much regions attend to one another, averaged over heads, blocks, "
        f"windows and {material.on_how_many()}. Incoming attention is what a region "
        "receives; 1 is what it would get if all were attended to alike.",
        not_shown="Attention is a part of the computation, not an explanation: a "
        "region that is attended to need not matter to the result. Compare with "
        "occlusion and integrated gradients (bsym_sklearn.analysis.importance).",
        parts=tuple(parts),
    )


def _of_stream(material: Material, stream: str) -> list[Part]:
    """Return maps, networks and regions of one stream."""
    maps = np.asarray(material.estimator.attention(material.some_scans, stream))
    maps = maps[np.isfinite(maps).all(axis=(1, 2))]
    mean = maps.mean(axis=0)
    received = incoming(maps)
    received /= received.mean(axis=1, keepdims=True)
    frame = pd.DataFrame({"region": material.regions})
    if material.networks is not None:
        frame["network"] = material.networks
    frame["incoming"] = received.mean(axis=0)
    frame["SD over scans"] = received.std(axis=0, ddof=min(1, len(maps) - 1))
    frame["outgoing"] = outgoing(mean)
    frame = frame.sort_values("incoming", ascending=False, kind="stable")
    networks = None if material.networks is None else list(material.networks)
    edges = top_edges(mean, N_EDGES, labels=material.regions, networks=networks)
    shown = [name for name in EDGE_NAMES if name in edges]
    edges = edges[shown].rename(columns=EDGE_NAMES)
    note = "Incoming: times the average region. Outgoing: share that goes to other "
    note += "regions."
    if stream == "structural":
        note += " These weights have signs, of which magnitudes are counted."
    return [
        Heading(f"{stream.capitalize()} stream, {plural(len(maps), 'scan')}"),
        Pictures(tuple(_pictures(material, stream, mean, received))),
        make_table(
            frame,
            f"Regions by incoming attention ({stream})",
            formats=FORMATS,
            note=note,
        ),
        make_table(edges, f"Strongest pairs ({stream})", formats=FORMATS),
    ]


def _pictures(
    material: Material, stream: str, mean: np.ndarray, received: np.ndarray
) -> Iterator[Picture]:
    """Draw the mean map (R, R), and what regions receive in each scan (n, R)."""
    networks = material.short_networks
    relative = received.mean(axis=0)
    order = np.argsort(-relative, kind="stable")[:3]
    best = listed([f"{material.regions[r]} ({relative[r]:.2f})" for r in order])
    names = brief(material.regions)
    yield draw(
        lambda ax: plot_attention(mean, ax=ax, labels=names, networks=networks),
        alt=f"Map of {stream} attention between {len(mean)} regions.",
        caption="Mean map; rows attend to columns.",
        height=3.1,
    )
    if networks is not None:
        yield from _by_network(mean, received, networks, best)
    places = material.coordinates
    if places is not None:
        known = np.isfinite(places).all(axis=1)
        yield draw(
            lambda ax: plot_glass_brain(
                *(relative[known], places[known]), ax=ax, label=LABEL
            ),
            alt=f"Incoming attention of regions in a glass brain; most have {best}.",
            caption="Incoming attention where the regions are.",
            on_paper=True,
            width=5.4,
            height=1.9,
        )


def _by_network(
    mean: np.ndarray, received: np.ndarray, networks: list[str], best: str
) -> Iterator[Picture]:
    """Draw attention between networks, and what their regions receive."""
    blocks = network_blocks(mean, networks)
    most = np.unravel_index(np.nanargmax(np.abs(blocks.to_numpy())), blocks.shape)
    pair = f"{blocks.index[most[0]]} to {blocks.columns[most[1]]}"
    yield draw(
        lambda ax: plot_network_blocks(blocks, ax=ax),
        alt=f"Mean attention between {len(blocks)} networks; the largest is {pair}.",
        caption="Mean weight of a pair of regions, by their networks.",
        height=3.1,
    )
    yield draw(
        lambda ax: plot_incoming(received.mean(axis=0), networks, ax=ax, label=LABEL),
        alt=f"Incoming attention, a bar per region by network; most have {best}.",
        caption="Incoming attention of each region; the dashed line is the average.",
        on_paper=True,
    )
    bars = network_bars(received, networks)
    means = [f"{name} {value:.2f}" for name, value in bars.mean().items()]
    yield draw(
        lambda ax: plot_network_bars(bars, ax=ax, label=LABEL),
        alt=f"A bar per network, a dot per scan: {listed(means, 20)}.",
        caption="Incoming attention of a network's regions; a dot is a scan.",
        on_paper=True,
    )
    if len(blocks) > 1:
        yield draw(
            lambda ax: plot_chord(mean, networks, ax=ax),
            alt=f"Chord diagram of the strongest attention between {len(blocks)} "
            "networks.",
            caption="Strongest pairs, in the colour of the network that attends.",
            on_paper=True,
            height=3.9,
        )


def _gate(material: Material) -> list[Part]:
    """Return where the model trusts the series, and where the connectome."""
    each = gate_values(material.estimator, material.some_scans)
    each = each[np.isfinite(each).all(axis=1)]
    shares = each.mean(axis=0)
    frame = pd.DataFrame({"region": material.regions, "share of fmri": shares})
    if material.networks is not None:
        frame.insert(1, "network", material.networks)
    picture = draw(
        lambda ax: plot_gate(each, material.short_networks, ax=ax),
        alt=f"Share of fmri in the embedding, by scan and region: median (range) over "
        f"regions {write_range(shares)}.",
        caption="Gate: how much of a region's embedding comes from its series; the "
        "rest comes from the connectome. Half at the start of training.",
    )
    return [
        Heading(f"Gate, {plural(len(each), 'scan')} with both modalities"),
        Pictures((picture,)),
        make_table(
            frame.sort_values("share of fmri", ascending=False, kind="stable"),
            "Gate of each region",
            formats=FORMATS,
        ),
    ]
