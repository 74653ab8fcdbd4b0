"""How well an embedder fills in what is hidden from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.hidden import draw_masks, score_columns
from bsym_sklearn.analysis.reconstruction import score_hidden, summarize_hidden
from bsym_sklearn.plotting.reconstruction import plot_reconstruction
from bsym_sklearn.plotting.series import plot_connectomes, plot_time_courses
from bsym_sklearn.report.contents import (
    Facts,
    Heading,
    Part,
    Pictures,
    Section,
    Table,
    brief,
    make_table,
    with_minus,
)
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.overlap import describe_overlap
from bsym_sklearn.report.pictures import draw
from bsym_sklearn.report.scans import group_column

LABEL_WIDTH = 14  # characters of a region beside its series
RATIO = 0.3  # share that is hidden
HIDES = {"fmri": "regions", "sc": "edges"}
CONTROLS = {
    "fmri": {"regions": "other regions", "time": "other times"},
    "sc": {"regions": "other regions"},
}
N_SHOWN = 200  # time points of the series that are drawn as lines


def describe_reconstruction(material: Material) -> Section | None:
    """Return the section on reconstruction, None for a model that does none.

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
    >>> describe_reconstruction(material) is None
    True
    """
    model = material.estimator
    if not hasattr(model, "reconstruct") or not hasattr(model, "scaled"):
        return None
    there = material.scans.table.iloc[material.rows]
    modalities = [m for m in model.modalities_ if there[m].any()]
    parts: list[Part] = [describe_overlap(material)]
    for modality in modalities:
        parts += _of_modality(material, modality)
    return Section(
        key="reconstruction",
        title="Reconstruction",
        shows=f"In {material.on_how_many()}, {RATIO:.0%} of the regions of a series, "
        "or of the connections of a connectome, are hidden from the model, which fills "
        "them in from the rest. R2 is 1 if it is right and 0 if it is as good as the "
        "mean of the hidden values. The controls compare with other regions of the "
        "same scan, and with the scan moved in time: what they reach as well is common "
        "to regions or times.",
        not_shown="Neighbouring regions are alike, so that much of this needs no deep "
        "model: a ridge regression from the other regions is the measure to beat "
        "(bsym_sklearn.analysis.imputation).",
        parts=tuple(parts),
    )


def _of_modality(material: Material, modality: str) -> list[Part]:
    """Return scores, examples and tables of one modality."""
    options: dict[str, Any] = {
        "hide": HIDES[modality],
        "ratio": RATIO,
        "group_column": group_column(material.estimator),
        "random_state": material.random_state,
    }
    model, X = material.estimator, material.some_scans
    table = score_hidden(model, X, **options)
    each = _by_scan(table)
    what = "regions" if modality == "fmri" else "connections"
    pairs = (
        (f"R2 of hidden {what}", _with_spread(each["r2"])),
        ("Pearson r", _with_spread(each["pearson"])),
        ("Mean absolute error", f"{each['mae'].mean():.3f}"),
        *_controls(material, modality, options),
        ("Scans", f"{len(each):,}"),
    )
    parts: list[Part] = [
        Heading(f"Hidden {what} ({modality}), mean ± SD over the scans"),
        Facts(pairs),
        _example(material, modality, each),
        _scans(material, each, what),
    ]
    if modality == "fmri":
        parts.append(_regions(material, table))
    return parts


def _by_scan(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of each scan, named by its number."""
    return summarize_hidden(table, by="scan", over="scan")


def _controls(
    material: Material, modality: str, options: dict[str, Any]
) -> list[tuple[str, str]]:
    """Return the score against something else than the truth."""
    facts = []
    for permute, words in CONTROLS[modality].items():
        table = score_hidden(
            material.estimator, material.some_scans, permute=permute, **options
        )
        scores = _by_scan(table)["r2"]
        facts.append((f"Control: R2, {words}", _with_spread(scores)))
    return facts


def _example(material: Material, modality: str, each: pd.DataFrame) -> Pictures:
    """Draw the scan whose reconstruction is the middle one of all."""
    middle = each["r2"].sort_values().index[len(each) // 2]
    row = material.rows[middle]
    model, X = material.estimator, material.scans.take(np.array([row]))
    truth = model.scaled(X, modality)
    masks = draw_masks(
        list(truth), hide=HIDES[modality], ratio=RATIO,
        random_state=material.random_state,
    )  # fmt: skip
    guess = model.reconstruct(X, modality=modality, mask=masks)[0]
    scan, hidden = np.asarray(truth[0]), np.asarray(masks[0])
    name = f"scan {material.some_names[middle]}, the middle one by R2"
    if modality == "sc":
        shown = np.where(hidden, guess, scan)
        said = _r2(scan[np.triu(hidden)][:, None], guess[np.triu(hidden)][:, None])
        picture = draw(
            lambda ax: plot_connectomes(
                scan, shown, ax=ax, networks=material.short_networks
            ),
            alt=f"Two connectomes side by side: observed, and with the hidden "
            f"connections filled in. R2 of these is {said}.",
            caption=f"Connectome of {name}; on the right, {RATIO:.0%} of the "
            f"connections are the model's (R2 {said}).",
            width=5.4,
            height=2.5,
        )
        return Pictures((picture,))
    t_r = model.preprocessing_.t_r
    said = _r2(scan, guess, hidden)
    carpet = draw(
        lambda ax: plot_reconstruction(scan, guess, hidden, ax=ax, t_r=t_r),
        alt="Three carpets of a scan: recorded, what the model saw of it, and what it "
        f"decoded. R2 of the hidden regions is {said}.",
        caption=f"Regions by time of {name}: recorded, seen by the model, decoded "
        f"(R2 of what was hidden {said}).",
        height=2.6,
    )
    lines = draw(
        lambda ax: plot_time_courses(
            *(values[:N_SHOWN] for values in (scan, guess, hidden)),
            ax=ax,
            t_r=t_r,
            labels=brief(material.regions, LABEL_WIDTH),
        ),
        alt="Series of four hidden regions, recorded and reconstructed.",
        caption="Four of its hidden regions, recorded and reconstructed"
        + (f"; the first {N_SHOWN} time points." if len(scan) > N_SHOWN else "."),
        height=2.9,
        width=3.9,
    )
    return Pictures((carpet, lines))


def _r2(truth: np.ndarray, guess: np.ndarray, hidden: np.ndarray | None = None) -> str:
    """Return R2 over all hidden values, as text."""
    mask = np.ones(truth.shape, bool) if hidden is None else hidden
    sums = score_columns(truth, guess, mask)[["squared_error", "squared_spread"]].sum()
    return with_minus(f"{1 - sums['squared_error'] / sums['squared_spread']:.2f}")


def _scans(material: Material, each: pd.DataFrame, what: str) -> Table:
    """Return a row per scan."""
    rows = material.rows[each.index]
    frame = pd.DataFrame({"scan": material.scans.table["scan"].to_numpy()[rows]})
    people = material.scans.table["participant"].iloc[rows]
    if people.notna().any():
        frame["participant"] = people.to_numpy()
    names = {"r2": "R2", "pearson": "Pearson r", "mae": "mean absolute error"}
    for column, name in names.items():
        frame[name] = each[column].to_numpy()
    formats = {"scan": ".0f", **dict.fromkeys(names.values(), ".3f")}
    return make_table(frame, f"Hidden {what} of each scan", formats=formats)


def _regions(material: Material, table: pd.DataFrame) -> Table:
    """Return a row per region, the worst first."""
    by_region = summarize_hidden(table, by="region", over="scan").sort_values("r2")
    frame = pd.DataFrame({"region": by_region.index.astype(str)})
    if material.networks is not None:
        network = dict(zip(material.regions, material.networks, strict=True))
        frame["network"] = [network.get(str(name)) for name in by_region.index]
    frame["R2"] = by_region["r2"].to_numpy()
    frame["SD over scans"] = by_region["r2_sd"].to_numpy()
    frame["Pearson r"] = by_region["pearson"].to_numpy()
    frame["scans"] = by_region["n"].to_numpy()
    formats = dict.fromkeys(("R2", "SD over scans", "Pearson r"), ".3f")
    return make_table(
        frame,
        "Each region while it was hidden, the worst first",
        formats=formats,
        note="Scans: those in which the region was hidden.",
    )


def _with_spread(scores: pd.Series) -> str:
    """Return mean and standard deviation."""
    text = f"{scores.mean():.3f}"
    spread = scores.std()
    return with_minus(text if np.isnan(spread) else f"{text} ± {spread:.3f}")
