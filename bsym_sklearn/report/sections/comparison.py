"""How models did on the same splits."""

from __future__ import annotations

import pandas as pd

from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.analysis.scores import LOWER_IS_BETTER
from bsym_sklearn.analysis.tables import conclusions, printed, strongest_rival
from bsym_sklearn.plotting.comparison import plot_forest
from bsym_sklearn.report.contents import (
    Note,
    Part,
    Picture,
    Pictures,
    Section,
    Table,
    brief,
    make_table,
    plural,
)
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.pictures import draw

ROW = 0.36  # inches of a model in the picture
LABEL_WIDTH = 40  # characters of its name there


def describe_comparison(material: Material) -> Section | None:
    """Return the section on a comparison, None without one.

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
    >>> describe_comparison(material) is None
    True
    """
    results = material.comparison
    if results is None:
        return None
    plain = summarize(results, n_resamples=0)  # for the means only
    reference = strongest_rival(plain) if len(plain) > 1 else None
    summary = summarize(results, reference=reference)
    said = conclusions(results, reference=reference)
    metric = str(summary.attrs["metric"])
    summary = summary.sort_values(metric, ascending=metric in LOWER_IS_BETTER)
    parts: list[Part] = [Note(tuple(said))]
    if summary[f"{metric}_low"].notna().any():
        parts.append(Pictures((_forest(summary),)))
    parts += [_headline_table(summary), _other_table(summary)]
    splits = plural(int(summary["splits"].max()), "split")
    return Section(
        key="comparison",
        title="Comparison",
        shows=f"Models fitted and judged on the same {splits}, participants on one "
        "side of each. Seeds are averaged within a split. Intervals and p values are "
        "those of Nadeau and Bengio over several splits, and from resampled "
        "participants on one; p values are adjusted by Holm's method.",
        not_shown="These models were fitted again on each split: they are not the one "
        "of this page. A difference without a small p is no proof that models are "
        "equal, and the data may have been looked at before.",
        parts=tuple(parts),
    )


def _forest(summary: pd.DataFrame) -> Picture:
    """Draw the differences, or the scores if there is one model."""
    metric = summary.attrs["metric"]
    drawn = summary.set_axis(brief(list(summary.index), LABEL_WIDTH))
    drawn.attrs = dict(summary.attrs)
    reference = summary.attrs["reference"]
    if reference is not None:
        drawn.attrs["reference"] = drawn.index[summary.index.get_loc(reference)]
    scores = [f"{name} {score:.3f}" for name, score in summary[metric].items()]
    return draw(
        lambda ax: plot_forest(drawn, ax=ax),
        alt=f"Models by {printed(metric)}: {', '.join(scores)}.",
        caption="A filled dot differs from the reference at the 5 % level, blue if "
        "better and orange if worse; an open one does not.",
        width=5.4,
        height=0.8 + ROW * len(summary),
    )


def _headline_table(summary: pd.DataFrame) -> Table:
    """Return the score that models are compared by, and what is said of it."""
    metric, reference = summary.attrs["metric"], summary.attrs["reference"]
    columns = {
        printed(metric): metric,
        "SD": f"{metric}_sd",
        "low": f"{metric}_low",
        "high": f"{metric}_high",
        "difference": "difference",
        "p (Holm)": "p_holm",
        "P(better)": "better",
    }
    frame = _columns(summary, columns)
    fits = summary["splits"] * summary["seeds"]
    frame["degenerate fits"] = [
        f"{bad} of {n}" for bad, n in zip(summary["degenerate"], fits, strict=True)
    ]
    frame["level"] = summary["level"].to_numpy()
    formats = {"difference": "+.3f", "p (Holm)": "p", "P(better)": ".2f"}
    note = f"SD: over the splits. Low, high: {100 * summary.attrs['confidence']:g} % "
    note += "interval. Level A: pretraining saw the training rows only; B: also scans "
    note += "of other people; C: perhaps the tested scans, without their targets."
    if reference is not None:
        note = f"Differences are from {reference}, positive if better. {note}"
    return make_table(
        frame,
        f"Models by {printed(metric)}, the best first",
        formats=dict.fromkeys(columns, ".3f") | formats,
        note=note,
    )


def _other_table(summary: pd.DataFrame) -> Table:
    """Return the other scores of each model, and what it costs."""
    others = [m for m in summary.attrs["metrics"] if m != summary.attrs["metric"]]
    columns = {printed(metric): metric for metric in others}
    formats = dict.fromkeys(columns, ".3f")
    columns |= {"seconds to fit": "seconds", "seconds to predict": "seconds_predict"}
    columns |= {"learned numbers": "parameters", "memory (MB)": "peak_memory_mb"}
    frame = _columns(summary, columns)
    return make_table(frame, "Other scores, and costs", formats=formats)


def _columns(summary: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Return columns of a summary that are there under other names."""
    frame = pd.DataFrame({"model": [str(label) for label in summary.index]})
    for name, column in columns.items():
        if column in summary and summary[column].notna().any():
            frame[name] = summary[column].to_numpy(float)
    return frame
