"""Tables of `reconstruction.py`, and its section of the page about interpretation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import ttest_1samp

from bsym_sklearn.analysis.reconstruction import summarize_hidden

KEYS = ["model", "hide", "ratio", "span"]
# Fig. 4a of arXiv:2506.18314, read off the picture to about .02: true, permuted.
PRINTED = pd.DataFrame(
    {
        "R²": [0.33, 0.37, 0.38, 0.29, 0.24, 0.21, 0.23, 0.24],
        "R² permuted": [-0.15, -0.12, -0.11, -0.16, -0.13, -0.12, -0.13, -0.05],
        "Pearson": [0.62, 0.63, 0.64, 0.60, 0.57, 0.53, 0.56, 0.55],
        "Pearson permuted": [0.23, 0.25, 0.25, 0.23, 0.24, 0.24, 0.24, 0.27],
        "MAE": [0.38, 0.39, 0.39, 0.38, 0.41, 0.41, 0.41, 0.45],
        "MAE permuted": [0.49, 0.51, 0.52, 0.49, 0.49, 0.50, 0.49, 0.53],
    },
    index=[
        f"{when}, {what}"
        for when in ("before", "psilocybin")
        for what in ("rest", "meditation", "music", "movie")
    ],
)
PRINTED_PATTERN = 0.818
WORDS = {"r2": "R²", "pearson": "Pearson", "mae": "MAE"}
# What is hidden in the table of controls.
CONTROL = pd.Series({"hide": "regions", "ratio": 0.3, "span": 1})
CONNECTOME = {
    "pattern": "pattern correlation",
    "pattern_permuted": "with another person's",
    "pattern_nothing_hidden": "nothing hidden",
    "r2": "R²",
    "mae": "MAE",
    "ks": "KS distance of weights",
    "edge_r2": "R² over people, median edge",
    "edge_pearson": "Pearson over people, median edge",
}


def tables(
    scores: pd.DataFrame, whole: pd.DataFrame, *, ours: str
) -> dict[str, pd.DataFrame]:
    """Return all that is reported, by the name of its file.

    Parameters
    ----------
    scores : DataFrame
        Rows of `score_hidden` with ``model``, ``seed``, ``hide``, ``ratio``, ``span``
        and ``permute``.
    whole : DataFrame
        Scores of connectomes, one row per fit; empty without any.
    ours : str
        Model that the floors are compared with; others whose names begin like it are no
        floors.

    Returns
    -------
    dict of str to DataFrame
    """
    permute = scores["permute"].fillna("none")
    scores = scores.assign(permute=permute)
    plain = scores[permute == "none"]
    control = (scores[CONTROL.index] == CONTROL).all(axis=1)
    found = {
        "summary": summarize_hidden(plain, by=KEYS),
        "regions": summarize_hidden(plain, by=[*KEYS, "region"]),
        "controls": summarize_hidden(scores, by=[*KEYS, "permute"]),
        "conditions": summarize_hidden(
            scores[control], by=["model", "condition", "permute"]
        ),
        "differences": differences(plain, ours),
    }
    if len(whole):
        groups = whole.groupby("model", sort=False)
        found["connectomes"] = groups.mean()
        found["connectomes_sd"] = groups.std()
    return found


def differences(scores: pd.DataFrame, ours: str) -> pd.DataFrame:
    """Compare a model with the best floor of each task, person by person."""
    by = [*KEYS, "participant"]
    sums = scores.groupby(by, sort=False)[["squared_error", "squared_spread"]].sum()
    sums["r2"] = 1 - sums["squared_error"] / sums["squared_spread"]
    each = sums.pivot_table("r2", index=by[1:], columns="model", sort=False)
    rows = {}
    for task, table in each.groupby(KEYS[1:], sort=False):
        others = [name for name in table if not name.startswith(ours)]
        floors = table[others].dropna(axis=1, how="all")
        if ours not in table or floors.empty:
            continue
        floor = floors.mean().idxmax()
        difference = (table[ours] - table[floor]).dropna()
        interval = ttest_1samp(difference, 0).confidence_interval()
        rows[task] = {
            "model": table[ours].mean(),
            "floor": floor,
            "floor_r2": table[floor].mean(),
            "difference": difference.mean(),
            "low": interval.low,
            "high": interval.high,
            "n": len(difference),
        }
    names = pd.MultiIndex.from_tuples(list(rows), names=KEYS[1:])
    return pd.DataFrame(list(rows.values()), index=names if rows else None)


def section(folder: Path, *, with_printed: bool = True) -> str:
    """Return the section of docs/benchmarks/interpretation.md on one cohort.

    Parameters
    ----------
    folder : Path
        What `reconstruction.py` wrote.
    with_printed : bool, default=True
        Whether to add the paper's numbers; once on a page is enough.

    Returns
    -------
    str
        Markdown.
    """
    settings = json.loads((folder / "settings.json").read_text())
    summary = _read(folder, "summary")
    options = settings["options"]
    lines = [
        f"## Reconstruction: `{settings['data']}`",
        "",
        "```bash",
        settings["command"],
        "```",
        "",
        f"{settings['scans']} scans of {settings['participants']} people, "
        f"{settings['regions']} regions, {settings['time_points']} time points; "
        f"{options['folds']} parts of the people, each tested by models that were "
        f"fitted on the others; seeds {_list(options['seeds'])}. Mean ± standard "
        "deviation over people; R² is pooled over the regions, scans and seeds of a "
        "person. Values are scaled by the whole scan, hidden ones included, for every "
        "model alike.",
        "",
    ]
    if settings["embedder"].get("decoder") == "residual":
        lines += [
            "*Untrained* has random weights; the linear autoregression of "
            "`decoder='residual'` is fitted all the same, in closed form.",
            "",
        ]
    titles = {"regions": "regions", "time_points": "time points", "edges": "edges"}
    for hide, title in titles.items():
        part = summary[summary["hide"] == hide]
        if len(part):
            lines += [f"R² of hidden {title}:", "", _wide(part), ""]
    lines += _against_floors(_read(folder, "differences"))
    lines += _controls(_read(folder, "conditions"))
    lines += _printed() if with_printed else []
    if (folder / "connectomes.csv").exists():
        lines += _connectomes(folder)
    return "\n".join(lines).rstrip() + "\n"


def _wide(part: pd.DataFrame) -> str:
    """Return R2 by model and task, as Markdown."""
    parts = []
    for row in part.itertuples():
        task = f"{100 * row.ratio:g} %"
        task += f", spans of {row.span}" if row.span > 1 else ""
        parts.append((row.model, task, _pm(row.r2, row.r2_sd)))
    table = pd.DataFrame(parts, columns=["model", "task", "text"])
    order = list(dict.fromkeys(table["task"]))
    wide = table.pivot_table(
        index="model", columns="task", values="text", aggfunc="first", sort=False
    )
    return markdown(wide[order].fillna(""))


def _against_floors(table: pd.DataFrame) -> list[str]:
    """Return sentences on the model against the best floor of each task."""
    if table.empty:
        return []
    lines = [
        "BrainSymphony against the best floor of each task, person by person (R², "
        "difference with its 95 % interval by t over people, who share a model within "
        "a part):",
        "",
    ]
    rows = []
    for row in table.itertuples():
        span = f", spans of {row.span}" if row.span > 1 else ""
        rows.append(
            {
                "hidden": f"{row.hide.replace('_', ' ')}, {100 * row.ratio:g} %{span}",
                "BrainSymphony": _number(row.model),
                "best floor": f"{row.floor}, {_number(row.floor_r2)}",
                "difference": f"{row.difference:+.3f} "
                f"[{row.low:+.3f}, {row.high:+.3f}]",
                "people": str(row.n),
            }
        )
    return [*lines, markdown(pd.DataFrame(rows).set_index("hidden")), ""]


def _controls(table: pd.DataFrame) -> list[str]:
    """Return hidden regions by condition, with controls, beside the paper's."""
    if table.empty:
        return []
    lines = [
        "30 % of the regions hidden, and the same reconstructions compared with "
        "another region of the scan (*regions*), the scan moved in time (*time*) or a "
        "scan of another person (*scans*):",
        "",
    ]
    rows: dict[str, dict[str, str]] = {}
    for row in table.itertuples():
        name = row.model if row.condition == "all" else f"{row.model}: {row.condition}"
        cells = rows.setdefault(name, {})
        for score, word in WORDS.items():
            suffix = "" if row.permute == "none" else f" {row.permute}"
            value = getattr(row, score)
            if not suffix or score != "mae":
                cells[word + suffix] = _number(value)
    order = ["R²", "Pearson", "MAE"]
    shown = pd.DataFrame(rows).T.fillna("")
    columns = [c for c in order if c in shown]
    columns += [c for c in shown if c not in columns]
    return [*lines, markdown(shown[columns]), ""]


def _printed() -> list[str]:
    """Return what the paper prints about hidden regions."""
    table = PRINTED.map(_number).rename_axis("PsiConnect")
    return [
        "The paper prints (PsiConnect, 54 people, 450 regions, a model pretrained on "
        "967 + 262 other people; its Fig. 4a, read off the picture to about .02; the "
        "share hidden and what is permuted are not stated; other people, atlas, "
        "preprocessing and scaling than here, so that the rows rank nothing):",
        "",
        markdown(table),
        "",
    ]


def _connectomes(folder: Path) -> list[str]:
    """Return the scores of whole connectomes."""
    mean = _read(folder, "connectomes").set_index("model")
    spread = _read(folder, "connectomes_sd").set_index("model")
    shown = pd.DataFrame(index=mean.index)
    for column, word in CONNECTOME.items():
        shown[word] = [
            _pm(value, sd)
            for value, sd in zip(mean[column], spread[column], strict=True)
        ]
    return [
        "Whole connectomes, each edge as predicted while it was hidden with a fifth of "
        "the others; mean ± standard deviation over parts and seeds. The paper prints "
        f"a pattern correlation of {PRINTED_PATTERN} (other people, 450 regions). The "
        "correlation with *another* person's connectome says how much of it is shared "
        "by all; with nothing hidden, the mean edge repeats what it sees; R² over "
        "people is 0 for the mean of the tested people.",
        "",
        markdown(shown),
        "",
    ]


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts as Markdown."""
    head = [table.index.name or "model", *table.columns]
    rows = [[name, *row] for name, *row in table.itertuples()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _read(folder: Path, name: str) -> pd.DataFrame:
    """Return a table."""
    return pd.read_csv(folder / f"{name}.csv")


def _number(value: Any) -> str:
    """Return a number with three decimals, nothing for none."""
    return "" if pd.isna(value) else f"{value:.3f}"


def _pm(value: float, spread: float) -> str:
    """Return mean and spread."""
    if pd.isna(value) or pd.isna(spread):
        return _number(value)
    return f"{value:.3f} ± {spread:.3f}"


def _list(values: list[int]) -> str:
    """Return numbers in words."""
    return ", ".join(map(str, values))
