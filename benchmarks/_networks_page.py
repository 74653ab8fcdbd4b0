"""Tables of `networks.py`, and its section of the page about interpretation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from bsym_sklearn.analysis.statistics import corrected_t_test
from bsym_sklearn.analysis.tables import format_p

LEVELS = (
    "group of held-out scans",
    "group of all scans",
    "one held-out scan alone",
    "regions and people both new",
)
FLOOR = "connectivity"
PRINTED = 0.844  # arXiv:2506.18314, second-hand: not in the text that was read
EXPLAINED = {
    LEVELS[0]: "Embeddings averaged over the scans of the held-out people; folds over "
    "regions.",
    LEVELS[1]: "The same over all scans, those of pretraining included (no network was "
    "used in pretraining).",
    LEVELS[2]: "One scan of each held-out person; the classifier learns from other "
    "regions of the same scan. Of rows with the training mean, half of what is read is "
    "the mean over the scans of pretraining: it says much of what a scan alone does "
    "not. ± is the standard deviation over people.",
    LEVELS[3]: "Classifiers learn from some held-out people's scans and are tested on "
    "other regions of other held-out people, scan by scan.",
}


def summarize(results: pd.DataFrame, folds: int = 5) -> pd.DataFrame:
    """Return one row per level, embedding and method.

    Parameters
    ----------
    results : DataFrame
        ``level``, ``embedding``, ``seed``, ``method``, ``repeat``, ``part``,
        ``accuracy`` and ``ari``.
    folds : int
        Of a classifier.

    Returns
    -------
    DataFrame
        Means; ``sd`` of the accuracy over people for single scans, else over seeds and
        repeats (of means over folds); for classifiers the ``difference`` in accuracy
        from connectivity with a 95 % interval and p, corrected for overlapping folds.
    """
    rows = []
    for (level, name, method), table in results.groupby(
        ["level", "embedding", "method"], sort=False
    ):
        alone = level == LEVELS[2]
        unit = ["part"] if alone else ["seed", "repeat"]
        if method == "kmeans" and not alone:
            unit = ["seed", "part"]
        means = table.groupby(unit)["accuracy"].mean()
        row: dict[str, Any] = {"level": level, "embedding": name, "method": method}
        row |= {"accuracy": means.mean(), "ari": table["ari"].mean()}
        row["sd"] = means.std() if len(means) > 1 else np.nan
        floor = results[
            (results["level"] == level)
            & (results["embedding"] == FLOOR)
            & (results["method"] == method)
        ]
        if method in ("logistic", "knn") and name != FLOOR:
            row |= _difference(table, floor, None if alone else 1 / folds)
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(
    table: pd.DataFrame, floor: pd.DataFrame, test_fraction: float | None
) -> dict[str, float]:
    """Return how much better than the floor, seeds averaged first."""
    key = ["repeat", "part"]
    ours = table.groupby(key)["accuracy"].mean()
    difference = (ours - floor.groupby(key)["accuracy"].mean()).to_numpy()
    if test_fraction is None:
        test = ttest_1samp(difference, 0)
        low, high = test.confidence_interval()
        p = test.pvalue
    else:
        found = corrected_t_test(difference, 0.0, test_fraction=test_fraction)
        low, high, p = found.low, found.high, found.p_value
    named = {"difference": difference.mean(), "low": low, "high": high, "p": p}
    return {name: float(value) for name, value in named.items()}


def section(folder: Path) -> str:
    """Return the section of a finished run, as Markdown."""
    settings = json.loads((folder / "settings.json").read_text())
    table = pd.read_csv(folder / "table.csv")
    people, scans = settings["participants"], settings["scans"]
    options = settings["options"]
    chance = table.loc[table["method"] == "majority", "accuracy"].iloc[0]
    sizes = settings["networks"].values()
    reached = table[(table["level"] == LEVELS[0]) & (table["method"] == "logistic")]
    reached = reached.set_index("embedding")["accuracy"]
    seeds = ", ".join(map(str, options["seeds"]))
    lines = [
        "## Networks without labels",
        "",
        f"`{settings['command']}`",
        "",
        f"Cohort `{settings['data']}`: {sum(scans.values())} scans of "
        f"{sum(people.values())} people, {sum(sizes)} regions of {len(sizes)} "
        f"networks. Pretrained on {scans['pretrain']} scans of {people['pretrain']} "
        f"people ({options['epochs']} epochs, seeds {seeds}), recipe chosen on "
        f"{people['develop']} others, tested on {scans['test']} scans of "
        f"{people['test']} people. Classifiers are tested on regions they have not "
        f"seen ({options['folds']} folds, parameters chosen inside); always naming the "
        f"largest network is right in {chance:.1%}. Recipes were compared by the same "
        "networks that are tested here, on other people.",
        "",
        f"The paper is quoted with {PRINTED:.1%} against a chance of {1 / 7:.1%} "
        "(other people, 450 regions with subcortex; neither figure nor protocol is in "
        "what could be read of it). In the "
        f"first table below, an untrained model reaches "
        f"{reached['untrained, fused']:.1%} and plain connectivity "
        f"{reached[FLOOR]:.1%}: such a figure alone does not show that anything was "
        "learned.",
    ]
    for level in LEVELS:
        part = table[table["level"] == level]
        lines += ["", f"### {level[0].upper()}{level[1:]}", "", EXPLAINED[level], ""]
        lines += _markdown(part)
    lines += ["", *_tests(folder)]
    return "\n".join(lines) + "\n"


def _markdown(table: pd.DataFrame) -> list[str]:
    """Return a table of one level, a row per embedding."""
    methods = [m for m in ("logistic", "knn", "kmeans") if m in set(table["method"])]
    heads = {
        "logistic": ["logistic", "against connectivity [95 %], p"],
        "knn": ["kNN"],
        "kmeans": ["k-means", "adjusted Rand"],
    }
    head = ["embedding", *[name for m in methods for name in heads[m]]]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, rows in table.groupby("embedding", sort=False):
        by = rows.set_index("method")
        cells = [str(name)]
        for method in methods:
            cells += _cells(by.loc[method], method)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(row: pd.Series, method: str) -> list[str]:
    """Return what is said of one embedding and method."""
    spread = f" ± {row['sd']:.3f}" if np.isfinite(row["sd"]) else ""
    cells = [f"{row['accuracy']:.3f}{spread}"]
    if method == "kmeans":
        return [*cells, f"{row['ari']:.3f}"]
    if method == "logistic":
        known = np.isfinite(row["difference"])
        text = (
            f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], "
            f"{format_p(row['p'])}"
        )
        cells.append(text if known else "")
    return cells


def _tests(folder: Path) -> list[str]:
    """Return the tests against meaningless networks, and the surest mistakes."""
    lines = [
        f"- {test.embedding}, networks {test.null}: accuracy {test.accuracy:.3f} "
        f"against {test.null_mean:.3f} (95th percentile {test.null_95:.3f}), p "
        f"{format_p(test.p)}"
        for test in pd.read_csv(folder / "tests.csv").itertuples()
    ]
    wrong = pd.read_csv(folder / "misclassified.csv").head(5)
    named = [
        f"{row.label} as {row.predicted} ({row.probability:.2f})"
        for row in wrong.itertuples()
    ]
    return [
        "Group of held-out scans, against networks that are shuffled, and that are "
        "turned on the hemispheres as a whole (a spin test, contiguity kept):",
        "",
        *lines,
        "",
        f"Surest mistakes of the pretrained model: {'; '.join(named) or 'none'}.",
        "",
        "![Which networks are taken for which](networks_confusion.png)",
    ]
