"""A summary of models as text, Markdown, LaTeX or CSV, and in plain sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.results import find_label, score_matrix, summarize
from bsym_sklearn.analysis.scores import LOWER_IS_BETTER
from bsym_sklearn.model.layers import check_choice

STYLES = ("text", "markdown", "latex", "csv")
SIGNIFICANT = 0.05
# How names end of models that differ in nothing but pretraining.
PRETRAINING = {"-frozen": "-random", "-finetuned": "-scratch"}
PRINTED = {"auroc": "AUROC", "f1": "F1", "log_loss": "log-loss", "brier": "Brier"}
PRINTED |= {"r2": "R2", "mae": "MAE", "pearson": "Pearson r", "spearman": "Spearman r"}


def format_table(summary: pd.DataFrame, style: str = "text") -> str:
    """Return a table to print, to paste or to publish.

    Parameters
    ----------
    summary : DataFrame
        Of :func:`~bsym_sklearn.analysis.results.summarize`.
    style : {"text", "markdown", "latex", "csv"}, default="text"
        CSV has all columns with all digits; the others are rounded, and leave out the
        intervals of two splits, which say nothing. LaTeX needs the package booktabs.

    Returns
    -------
    str
        Lines.

    Raises
    ------
    ValueError
        If the style is unknown.

    Examples
    --------
    >>> costs = {"seconds": 0.1, "parameters": 3, "peak_memory_mb": 9.0}
    >>> counts = {"splits": 5, "seeds": 1, "degenerate": 0, "level": "A"}
    >>> row = {"auroc": 0.5, "auroc_sd": 0.01, "auroc_low": 0.4, "auroc_high": 0.6}
    >>> summary = pd.DataFrame([{**row, **costs, **counts}], index=["chance"])
    >>> summary.attrs = {"metric": "auroc", "metrics": ["auroc"], "confidence": 0.95}
    >>> print(format_table(summary, "markdown").splitlines()[2])
    | chance | 0.500 ± 0.010 | [0.400, 0.600] | 0.1 | 3 | 9 | 0/5 | A |
    """
    check_choice(style, STYLES, "style")
    if style == "csv":
        return summary.to_csv(index_label="label")
    text = _as_text(summary)
    if style == "text":
        return text.to_string()
    lines = [["model", *text.columns]]
    lines += [
        [str(x), *row] for x, row in zip(text.index, text.to_numpy(), strict=True)
    ]
    if style == "markdown":
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    rows = [f"{' & '.join(map(_as_latex, line))} \\\\" for line in lines]
    begin = f"\\begin{{tabular}}{{l{'r' * text.shape[1]}}}"
    parts = [begin, "\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule"]
    return "\n".join([*parts, "\\end{tabular}"])


def conclusions(
    results: pd.DataFrame,
    *,
    metric: str | None = None,
    reference: str | None = None,
    rope: float = 0.01,
    n_resamples: int = 2000,
) -> list[str]:
    """Say in plain sentences who wins, and what pretraining did.

    Parameters
    ----------
    results : DataFrame
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.
    metric : str or None, default=None
        See :func:`~bsym_sklearn.analysis.results.summarize`.
    reference : str or None, default=None
        Model that the others must beat. None takes the best classical one on these
        same splits, which is in its favour; without any, the best that is not ours.
    rope : float, default=0.01
        Differences up to this are practically none.
    n_resamples : int, default=2000
        Resamples of the participants, on one split.

    Returns
    -------
    list of str
        One sentence or two each. A win needs p < .05 after Holm's adjustment.

    Examples
    --------
    >>> from bsym_sklearn.analysis.comparison import compare
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> results = compare(["dummy", "amplitude"], cohort.data, cohort.target, cv=2)
    >>> sentences = conclusions(results)
    >>> sentences[0].startswith("Best AUROC of 2 models over 2 splits: ")
    True
    """
    plain = summarize(results, metric=metric, n_resamples=0)  # for the means only
    metric = str(plain.attrs["metric"])
    best = _best(plain)
    label = (
        strongest_rival(plain) if reference is None else find_label(plain, reference)
    )
    splits = int(plain["splits"].max())
    where = "on one split" if splits == 1 else f"over {splits} splits"
    said = [
        f"Best {printed(metric)} of {len(plain)} models {where}: {best}, "
        f"{plain.loc[best, metric]:.3f}."
    ]
    options: dict[str, Any] = {"metric": metric, "rope": rope}
    options["n_resamples"] = n_resamples
    if len(plain) > 1:
        said += _against(summarize(results, reference=label, **options))
    said += _of_pretraining(results, plain, options)
    for name, row in plain[plain["family"] != "floor"].iterrows():
        if row["degenerate"]:
            said.append(
                f"{name} is degenerate in {row['degenerate']} of {_n_fits(row)} fits: "
                "it calls every scan the same. Scores behind the labels, which AUROC "
                "reads, may still differ."
            )
    if (plain["level"] == "C").any():
        said.append(
            "Level C: what was pretrained may have seen the scans that are tested, "
            "without their targets."
        )
    return said


def strongest_rival(summary: pd.DataFrame) -> str:
    """Return the model that the others must beat.

    Parameters
    ----------
    summary : DataFrame
        Of :func:`~bsym_sklearn.analysis.results.summarize`.

    Returns
    -------
    str
        Label of the best classical model; without any, of the best that is not ours.
        Being chosen on the splits that are tested is in its favour.

    Examples
    --------
    >>> rows = {"auroc": [0.6, 0.7, 0.8], "family": ["classical", "classical", "ours"]}
    >>> summary = pd.DataFrame(rows, index=["sc", "tangent", "BrainSymphony"])
    >>> summary.attrs["metric"] = "auroc"
    >>> strongest_rival(summary)
    'tangent'
    """
    for kept in ("family == 'classical'", "family != 'ours'"):
        rivals = summary.query(kept)
        if len(rivals):
            return _best(rivals)
    return _best(summary)


def _best(summary: pd.DataFrame) -> str:
    """Return the label of the best model."""
    metric = summary.attrs["metric"]
    scores = summary[metric]
    return str(scores.idxmin() if metric in LOWER_IS_BETTER else scores.idxmax())


def printed(metric: str) -> str:
    """Return how a score is written.

    Parameters
    ----------
    metric : str
        Its column.

    Returns
    -------
    str

    Examples
    --------
    >>> printed("balanced_accuracy"), printed("r2")
    ('balanced accuracy', 'R2')
    """
    return PRINTED.get(metric, metric.replace("_", " "))


def _as_text(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a summary as strings under printed names."""
    headline = summary.attrs["metric"]
    interval = f"{100 * summary.attrs['confidence']:g} % interval"
    text = pd.DataFrame(index=summary.index)
    for metric in summary.attrs["metrics"]:
        text[printed(metric)] = [
            _with_spread(mean, sd)
            for mean, sd in zip(summary[metric], summary[f"{metric}_sd"], strict=True)
        ]
        if metric == headline and summary["splits"].max() != 2:  # of two: endless
            text[interval] = _ranges(summary, metric)
    if "difference" in summary:
        ranges = _ranges(summary, "difference")
        if summary["splits"].max() == 2:
            ranges = [""] * len(ranges)
        text["difference"] = [
            "" if np.isnan(d) else f"{d:+.3f} {r}".rstrip()
            for d, r in zip(summary["difference"], ranges, strict=True)
        ]
        text["p (Holm)"] = [
            "" if np.isnan(p) else format_p(p) for p in summary["p_holm"]
        ]
    if "better" in summary:
        text["P(better)"] = [
            "" if np.isnan(p) else f"{p:.2f}" for p in summary["better"]
        ]
    text["seconds"] = [f"{s:.1f}" for s in summary["seconds"]]
    text["parameters"] = [f"{int(n):,}" for n in summary["parameters"]]
    text["memory (MB)"] = [f"{m:.0f}" for m in summary["peak_memory_mb"]]
    text["degenerate"] = [
        f"{r['degenerate']}/{_n_fits(r)}" for _, r in summary.iterrows()
    ]
    text["level"] = summary["level"]
    return text


def format_p(p: float) -> str:
    """Return a p value with three digits.

    Parameters
    ----------
    p : float
        In [0, 1].

    Returns
    -------
    str

    Examples
    --------
    >>> format_p(0.0321), format_p(1e-5)
    ('0.032', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _with_spread(mean: float, sd: float) -> str:
    return f"{mean:.3f}" + ("" if np.isnan(sd) else f" ± {sd:.3f}")


def _ranges(summary: pd.DataFrame, column: str) -> list[str]:
    """Return intervals as text, empty where there is none."""
    ends = summary[[f"{column}_low", f"{column}_high"]].to_numpy(dtype=float)
    return ["" if np.isnan(a) else f"[{a:.3f}, {b:.3f}]" for a, b in ends]


def _n_fits(row: pd.Series) -> int:
    return int(row["splits"] * row["seeds"])


def _as_latex(text: str) -> str:
    """Return text in which nothing is a command."""
    for character in "&%_#$":
        text = text.replace(character, f"\\{character}")
    return text.replace("±", "$\\pm$").replace("<", "$<$")


def _against(summary: pd.DataFrame) -> list[str]:
    """Return a sentence per model that is no floor, against the reference."""
    reference = summary.attrs["reference"]
    others = summary[(summary.index != reference) & (summary["family"] != "floor")]
    above = (others["p_holm"] < SIGNIFICANT) & (others["difference"] > 0)
    said = [f"No model is significantly above {reference}."]
    if above.any():
        names = ", ".join(map(str, others.index[above]))
        said = [f"Significantly above {reference}: {names}."]
    return said + [
        f"{name} {_verdict(row)} {reference} ({_numbers(summary, name, row)})."
        for name, row in others.iterrows()
    ]


def _verdict(row: pd.Series) -> str:
    """Return the words for a difference and its p value."""
    if not row["p_holm"] < SIGNIFICANT:
        return "cannot be told from"
    return "is above" if row["difference"] > 0 else "is below"


def _numbers(summary: pd.DataFrame, name: object, row: pd.Series) -> str:
    """Return what a verdict rests on."""
    metric, reference = summary.attrs["metric"], summary.attrs["reference"]
    text = f"{printed(metric)} {summary.loc[name, metric]:.3f} against "
    text += f"{summary.loc[reference, metric]:.3f}"
    if not np.isnan(row["p_holm"]):
        text += f", Holm p {format_p(row['p_holm'])}"
    if not np.isnan(row.get("equivalent", np.nan)):
        text += f", practically equal with probability {row['equivalent']:.2f}"
    return text


def _of_pretraining(
    results: pd.DataFrame, summary: pd.DataFrame, options: dict[str, Any]
) -> list[str]:
    """Return a sentence per pair of models that differ in nothing but pretraining."""
    labels = {model: label for label, model in summary["model"].items()}
    pairs = [
        (labels[name], labels[name.removesuffix(end) + other])
        for name in labels
        for end, other in PRETRAINING.items()
        if name.endswith(end) and name.removesuffix(end) + other in labels
    ]
    said = []
    for with_it, without in pairs:
        both = results[results["label"].isin([with_it, without])]
        pair = summarize(both, reference=without, **options)
        row = pair.loc[with_it]
        matrix = score_matrix(both, options["metric"])
        gains = matrix[with_it] - matrix[without]
        if options["metric"] in LOWER_IS_BETTER:
            gains = -gains
        said.append(
            f"Pretraining: {with_it} {_verdict(row)} {without} "
            f"({_numbers(pair, with_it, row)}; better in {(gains > 0).sum()} and worse "
            f"in {(gains < 0).sum()} of {len(gains)} splits)."
        )
    return said
