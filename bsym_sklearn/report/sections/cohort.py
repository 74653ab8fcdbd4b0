"""Who was scanned, how long, where, and what is wrong with the scans."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.splits import task_of
from bsym_sklearn.report.contents import (
    Facts,
    Note,
    Part,
    Picture,
    Pictures,
    Section,
    Table,
    listed,
    make_table,
    plural,
    write_number,
    write_range,
)
from bsym_sklearn.report.drawings import draw_bars, draw_histogram
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.pictures import draw
from bsym_sklearn.report.scans import Scans

MAX_COVARIATES = 40
MAX_BARS = 12


def describe_cohort(material: Material) -> Section:
    """Return the section on the scans.

    Parameters
    ----------
    material : Material
        What the page is made from.

    Returns
    -------
    Section

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> from bsym_sklearn.report.material import make_material
    >>> cohort = make_cohort(n_scans=8, n_regions=3)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> material = make_material(model, cohort.data)
    >>> [type(part).__name__ for part in describe_cohort(material).parts][:2]
    ['Facts', 'Table']
    """
    scans = material.scans
    pictures = tuple(_pictures(scans))
    parts: list[Part] = [*_notes(scans), Facts(_facts(scans))]
    if pictures:
        parts.append(Pictures(pictures))
    parts.append(_quality(scans))
    if len(scans.refused):
        parts.append(
            make_table(scans.refused.dropna(axis=1, how="all"), "Scans left out")
        )
    if scans.site_column is not None:
        parts.append(_sites(scans, scans.site_column))
    if len(scans.covariates.columns):
        parts.append(_covariates(scans.covariates))
    parts.append(_scans(scans))
    return Section(
        key="cohort",
        title="Cohort",
        shows="The scans that the model is shown here, and which of them are unusual.",
        not_shown="The checks find what is missing, constant, not finite or there "
        "twice. They cannot find wrong labels, poor registration or what motion left "
        "in the signal.",
        parts=tuple(parts),
    )


def _notes(scans: Scans) -> Iterator[Note]:
    """Say what a reader must not miss."""
    n = len(scans.refused)
    if n:
        yield Note(
            (
                f"{plural(n, 'scan')} could not be used and "
                f"{'is' if n == 1 else 'are'} in no other section; the reasons are "
                "below.",
            ),
            is_warning=True,
        )
    twice = scans.table["content"].duplicated(keep=False)
    if twice.any():
        names = np.array(scans.names())[twice.to_numpy()]
        yield Note(
            (
                f"{plural(int(twice.sum()), 'scan')} have the same values as another "
                f"one: {listed(names.tolist())}. The same scan on both sides of a "
                "split makes any score worthless.",
            ),
            is_warning=True,
        )


def _facts(scans: Scans) -> tuple[tuple[str, str], ...]:
    """Return the numbers of the cohort."""
    table, cohort = scans.table, scans.cohort
    facts = [("Scans", f"{len(scans):,}")]
    if table["participant"].notna().any():
        facts.append(("Participants", f"{table['participant'].nunique():,}"))
    facts.append(("Regions", f"{cohort.n_regions:,}"))
    if cohort.is_table:
        return (*facts, ("Form", "a table: one time point per scan"))
    with_fmri = table[table["fmri"]]
    if len(with_fmri):
        facts.append(("Time points", write_range(with_fmri["time points"])))
        seconds = 60 * with_fmri["minutes"] / with_fmri["time points"]
        if seconds.notna().any():
            facts.append(("Repetition time (s)", write_range(seconds.round(6))))
            facts.append(("Minutes", write_range(with_fmri["minutes"])))
    if scans.site_column is not None:
        n_sites = scans.covariates[scans.site_column].nunique()
        facts.append(("Sites", f"{n_sites:,}"))
    if scans.motion_column is not None:
        motion = pd.to_numeric(scans.covariates[scans.motion_column], errors="coerce")
        facts.append((f"Motion, {scans.motion_column} (mm)", write_range(motion)))
    return tuple(facts)


def _quality(scans: Scans) -> Table:
    """Return how many scans have each problem."""
    table, n = scans.table, len(scans)
    n_twice = int(table["content"].duplicated(keep=False).sum())
    checks = {
        f"{modality} missing": int((~table[modality]).sum())
        for modality in scans.cohort.modalities
    }
    if len(checks) > 1:
        checks["both modalities there"] = int((table["fmri"] & table["sc"]).sum())
    checks["constant regions"] = int((table["constant regions"] > 0).sum())
    checks["same values as another scan"] = n_twice
    checks["left out"] = len(scans.refused)
    if table["participant"].notna().any():
        several = table["participant"].dropna().duplicated(keep=False)
        checks["of a participant with several scans"] = int(several.sum())
    frame = pd.DataFrame(
        {
            "check": list(checks),
            "scans": list(checks.values()),
            "share": [count / (n + len(scans.refused)) for count in checks.values()],
        }
    )
    return make_table(
        frame, "What is missing or unusual", formats={"share": _as_percent}
    )


def _as_percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.3g} %"


def _sites(scans: Scans, column: str) -> Table:
    """Return a row per site."""
    table = scans.table.assign(site=scans.covariates[column].astype(object))
    groups = table.groupby("site", sort=False, dropna=False)
    sites = pd.DataFrame({"scans": groups.size()})
    if table["participant"].notna().any():
        sites["participants"] = groups["participant"].nunique()
    sites["median time points"] = groups["time points"].median()
    if scans.motion_column is not None:
        motion = pd.to_numeric(scans.covariates[scans.motion_column], errors="coerce")
        sites["mean motion (mm)"] = motion.groupby(table["site"], dropna=False).mean()
    if scans.y is not None and task_of(scans.y) == "regression":
        y = pd.Series(scans.y.astype(float))
        sites["mean target"] = y.groupby(table["site"], dropna=False).mean()
    elif scans.y is not None:
        for label in np.unique(scans.y)[:MAX_BARS]:
            is_label = pd.Series(scans.y == label).astype(int)
            sites[f"target {label}"] = is_label.groupby(
                table["site"], dropna=False
            ).sum()
    sites = sites.sort_values("scans", ascending=False).reset_index()
    return make_table(sites, f"Sites (column {column})")


def _covariates(table: pd.DataFrame) -> Table:
    """Return a row per column beside the scans."""
    names = list(table.columns)[:MAX_COVARIATES]
    rows = []
    for name in names:
        column = table[name]
        numeric = pd.api.types.is_numeric_dtype(column)
        numeric = numeric and not pd.api.types.is_bool_dtype(column)
        kind, summary = "numbers", write_range(column) if numeric else ""
        if not numeric:
            counts = column.astype(str)[column.notna()].value_counts()
            kind = f"{len(counts):,} words"
            common = [f"{word} ({count:,})" for word, count in counts.items()]
            summary = "all differ" if (counts == 1).all() else listed(common, 4)
        rows.append((str(name), kind, int(column.isna().sum()), summary))
    frame = pd.DataFrame(
        rows, columns=["column", "kind", "missing", "median (range), or words"]
    )
    left = len(table.columns) - len(names)
    return make_table(
        frame,
        "Columns beside the scans",
        note=f"{plural(left, 'further column')} left out." if left else "",
    )


def _scans(scans: Scans) -> Table:
    """Return a row per scan."""
    frame = scans.table.drop(columns="content").dropna(axis=1, how="all")
    dull = [
        name for name in ("fmri", "sc") if frame[name].all() or not frame[name].any()
    ]
    if not frame["constant regions"].any():
        dull.append("constant regions")
    frame = frame.drop(columns=dull)  # the same for all
    for column in (scans.site_column, scans.motion_column):
        if column is not None:
            frame[column] = scans.covariates[column]
    if scans.y is not None:
        frame["target"] = scans.y
    return make_table(
        frame,
        "The scans",
        formats={"scan": ".0f"},
        note="Scans are numbered as in X, from 0.",
    )


def _pictures(scans: Scans) -> Iterator[Picture]:
    """Draw what varies between the scans."""
    lengths = scans.table.loc[scans.table["fmri"], "time points"]
    if len(lengths) and lengths.min() < lengths.max():
        yield _histogram(lengths.to_numpy(), "time points", "Lengths of the scans")
    if scans.motion_column is not None:
        motion = pd.to_numeric(scans.covariates[scans.motion_column], errors="coerce")
        if motion.min() < motion.max():
            name = f"{scans.motion_column} (mm)"
            yield _histogram(motion.to_numpy(), name, "Motion within the scanner")
    if scans.y is not None:
        yield _target(scans.y)


def _histogram(values: np.ndarray, label: str, title: str) -> Picture:
    """Draw how one quantity is distributed over the scans."""
    return draw(
        lambda ax: draw_histogram(ax, values, label, "scans"),
        alt=f"Histogram of {label} over the scans: median and range "
        f"{write_range(values)}.",
        caption=f"{title}; the dashed line is the median.",
    )


def _target(y: np.ndarray) -> Picture:
    """Draw how the target is distributed."""
    if task_of(y) == "regression":
        return _histogram(y.astype(float), "target", "The target")
    counts = pd.Series(y).value_counts()
    shown = counts.iloc[:MAX_BARS]
    said = [f"{name} {write_number(count)}" for name, count in shown.items()]
    more = len(counts) - len(shown)
    return draw(
        lambda ax: draw_bars(ax, list(shown.index), shown.to_numpy(), "scans"),
        alt=f"Bars: scans of each class of the target. {listed(said, MAX_BARS)}.",
        caption="Scans of each class of the target"
        + (f"; {more} rarer classes are left out." if more else "."),
        height=0.6 + 0.3 * len(shown),
    )
