"""From the cells of a comparison to one row per model: means, intervals, tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bsym_sklearn.analysis.resampling import Bootstrap, paired_bootstrap
from bsym_sklearn.analysis.scores import (
    LOWER_IS_BETTER,
    METRICS,
    headline_metric,
    one_score,
)
from bsym_sklearn.analysis.statistics import (
    compare_to_reference,
    corrected_t_test,
    holm,
)

COSTS = ("seconds", "seconds_predict", "peak_memory_mb")
DIFFERENCE = ("difference", "difference_low", "difference_high")
POSTERIOR = ("worse", "equivalent", "better")


def score_matrix(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one score per split and model, seeds averaged.

    Parameters
    ----------
    results : DataFrame
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.
    metric : str
        One of its scores.

    Returns
    -------
    DataFrame of shape (n_splits, n_models)
        Columns are labels. What :mod:`~bsym_sklearn.analysis.statistics` takes, with a
        minus for scores of which less is better.

    Raises
    ------
    ValueError
        If there is no such score, or models have different splits or several levels.

    Examples
    --------
    >>> cells = {"label": ["a", "a"], "split": ["fold 1"] * 2, "level": ["A"] * 2}
    >>> results = pd.DataFrame({**cells, "seed": [0, 1], "auroc": [0.6, 0.8]})
    >>> score_matrix(results, "auroc").round(2)
    label     a
    split
    fold 1  0.7
    """
    known = [m for names in METRICS.values() for m in names if m in results]
    if metric not in known:
        raise ValueError(
            f"score_matrix needs one of the scores {known}. Got {metric!r}. Choose one."
        )
    shape = {"index": "split", "columns": "label", "sort": False, "dropna": False}
    n_cells = results.pivot_table(values="seed", aggfunc="count", **shape)
    mixed = results.groupby("label")["level"].nunique()
    if not n_cells.gt(0).all(axis=None) or mixed.gt(1).any():
        raise ValueError(
            "score_matrix needs every model on every split, at one level. Got "
            f"{n_cells.count().to_dict()} splits and {mixed.to_dict()} levels. "
            "Compare them together."
        )
    return results.pivot_table(values=metric, aggfunc="mean", **shape)


def summarize(
    results: pd.DataFrame,
    *,
    metric: str | None = None,
    reference: str | None = None,
    rope: float = 0.01,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """Return one row per model, with the statistics of a fair comparison.

    Seeds are averaged within a split before anything else: they are no further test
    sets. Over several splits, intervals and tests are those of Nadeau and Bengio, which
    allow for the overlap of training sets. On one split (an external cohort),
    participants of the test are resampled.

    Parameters
    ----------
    results : DataFrame
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.
    metric : str or None, default=None
        Score to compare by. None: AUROC of two classes, accuracy of more, R2 of values.
    reference : str or None, default=None
        Name or label of the model to compare the others with; None compares none.
    rope : float, default=0.01
        Differences up to this, in units of the score, are practically none.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    n_resamples : int, default=2000
        Resamples of the participants, on one split.

    Returns
    -------
    DataFrame of shape (n_models, n_columns)
        Index: labels. ``model``, ``family``, ``level``; per score ``<score>`` (mean
        over splits), ``<score>_sd``, ``<score>_low`` and ``<score>_high``; with a
        reference ``difference`` (positive if better, also where less is better) with
        ``difference_low`` and ``difference_high``, ``p_value``, ``p_holm`` (adjusted
        over the models) and the probabilities ``worse``, ``equivalent``, ``better``;
        ``seconds`` per fit, ``seconds_predict``, ``parameters``, ``peak_memory_mb``,
        and numbers of ``splits``, ``seeds`` and ``degenerate`` fits. `attrs` has
        ``metric``, ``metrics``, ``reference``, ``rope`` and ``confidence``.

    Raises
    ------
    ValueError
        If there is no such score or model.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from bsym_sklearn.analysis.comparison import compare
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> models = {"chance": DummyClassifier(strategy="prior"), "tangent": "tangent"}
    >>> results = compare(models, cohort.data, cohort.target, cv=2)
    >>> summary = summarize(results, reference="chance")
    >>> summary.loc["chance", ["auroc", "splits", "degenerate"]].tolist()
    [0.5, 2.0, 2.0]
    """
    task = "regression" if "r2" in results else "classification"
    if metric is None:
        n_classes = len(np.unique(np.concatenate(results["y_true"].tolist())))
        metric = headline_metric(task, n_classes)
    matrices = {name: score_matrix(results, name) for name in METRICS[task]}
    if metric not in matrices:
        score_matrix(results, metric)  # which says what is wrong
    by_label = results.groupby("label", sort=False)
    table = by_label[["model", "family", "level"]].first()
    fraction = float(results["test_fraction"].mean())
    for name, matrix in matrices.items():
        table[name], table[f"{name}_sd"] = matrix.mean(), matrix.std()
        table[f"{name}_low"], table[f"{name}_high"] = _intervals(
            matrix, fraction, confidence
        )
    label = None if reference is None else find_label(table, reference)
    one_split = len(matrices[metric]) == 1
    if one_split and n_resamples:
        options = {"n_resamples": n_resamples, "confidence": confidence}
        _add_bootstrap(table, results, metric, label, **options)
    elif label is not None and not one_split:
        signed = -matrices[metric] if metric in LOWER_IS_BETTER else matrices[metric]
        tests = _tests(signed, label, fraction, rope, confidence)
        table = table.join(tests)
    for name in COSTS:
        table[name] = by_label[name].mean()
    table["parameters"] = by_label["n_parameters"].max()
    table["splits"] = by_label["split"].nunique()
    table["seeds"] = by_label["seed"].nunique()
    table["degenerate"] = by_label["degenerate"].sum()
    table.index.name = None
    table.attrs = {
        "metric": metric,
        "metrics": list(METRICS[task]),
        "reference": label,
        "rope": rope,
        "confidence": confidence,
    }
    return table


def prediction_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return one line per model, split, seed and tested scan.

    Parameters
    ----------
    results : DataFrame
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.

    Returns
    -------
    DataFrame
        ``model``, ``split``, ``seed``, ``scan`` (row number), ``group``, ``truth``,
        ``predicted`` and, of classifiers, one ``probability_<class>`` per class.

    Examples
    --------
    >>> from bsym_sklearn.analysis.comparison import compare
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> results = compare(["dummy"], cohort.data, cohort.target, cv=2)
    >>> table = prediction_table(results)
    >>> len(table), list(table)[-2:]
    (12, ['probability_0', 'probability_1'])
    """
    frames = []
    for cell in results.to_dict("records"):
        columns = {
            "model": cell["label"],
            "split": cell["split"],
            "seed": cell["seed"],
            "scan": cell["rows"],
            "group": cell["groups"],
            "truth": cell["y_true"],
            "predicted": cell["y_pred"],
        }
        if cell["y_proba"] is not None:
            for i, label in enumerate(cell["classes"]):
                columns[f"probability_{label}"] = cell["y_proba"][:, i]
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def find_label(table: pd.DataFrame, model: str) -> str:
    """Return the label of a model that is called by its name or its label.

    Parameters
    ----------
    table : DataFrame
        Index: labels; with a column ``model``.
    model : str
        Name or label.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find_label(pd.DataFrame({"model": ["dummy"]}, index=["chance"]), "dummy")
    'chance'
    """
    if model in table.index:
        return model
    named = table.index[table["model"] == model]
    if not len(named):
        raise ValueError(
            f"The reference needs to be one of {list(table.index)}. Got {model!r}. "
            "Choose one of them."
        )
    return str(named[0])


def _intervals(
    matrix: pd.DataFrame, fraction: float, confidence: float
) -> tuple[list[float], list[float]]:
    """Return the corrected interval of each model's mean; NaN for one split."""
    lows, highs = [], []
    for label in matrix:
        scores = matrix[label].dropna()
        low = high = np.nan
        if len(scores) > 1:
            _, low, high, *_ = corrected_t_test(
                scores, 0.0, test_fraction=fraction, confidence=confidence
            )
        lows.append(low)
        highs.append(high)
    return lows, highs


def _tests(
    scores: pd.DataFrame,
    reference: str,
    fraction: float,
    rope: float,
    confidence: float,
) -> pd.DataFrame:
    """Test each model against one; splits where a score is undefined are left out."""
    rows = []
    for label in scores.columns.drop(reference):
        pair = scores[[label, reference]].dropna()
        if len(pair) > 1:
            rows.append(
                compare_to_reference(
                    pair,
                    reference,
                    test_fraction=fraction,
                    rope=rope,
                    confidence=confidence,
                )
            )
    if not rows:
        return pd.DataFrame(columns=[*DIFFERENCE, "p_value", "p_holm", *POSTERIOR])
    table = pd.concat(rows).rename(
        columns={"low": "difference_low", "high": "difference_high"}
    )
    table["p_holm"] = holm(table["p_value"])
    return table[[*DIFFERENCE, "p_value", "p_holm", *POSTERIOR]]


def _add_bootstrap(
    table: pd.DataFrame,
    results: pd.DataFrame,
    metric: str,
    reference: str | None,
    **options: Any,
) -> None:
    """Add intervals and tests on one split, by resampling participants."""
    by_label = {
        label: cells
        for label, cells in results.groupby("label", sort=False)
        if cells.iloc[0]["classes"] is None or cells.iloc[0]["y_proba"] is not None
    }  # scores of others were taken from what is not kept
    interval = [f"{metric}_low", f"{metric}_high"]
    tests = [] if reference is None else [*DIFFERENCE, "p_value", "p_holm"]
    table[[*interval, *tests]] = np.nan
    for label, cells in by_label.items():
        found = _bootstrap(cells, None, metric, **options)
        table.loc[label, interval] = found.low, found.high
    others = [x for x in by_label if x != reference] if reference in by_label else []
    for label in others:
        found = _bootstrap(by_label[label], by_label[reference], metric, **options)
        ends = [found.estimate, found.low, found.high]
        if metric in LOWER_IS_BETTER:
            ends = [-found.estimate, -found.high, -found.low]
        table.loc[label, [*DIFFERENCE, "p_value"]] = [*ends, found.p_value]
    if others:
        table.loc[others, "p_holm"] = holm(table.loc[others, "p_value"])


def _bootstrap(
    cells: pd.DataFrame, reference: pd.DataFrame | None, metric: str, **options: Any
) -> Bootstrap:
    """Resample the participants of one split; the seeds of a model are averaged."""
    first = cells.iloc[0]
    classes = first["classes"]

    def score(y: np.ndarray, predictions: np.ndarray) -> float:
        per_seed = [
            _score_stacked(metric, y, predictions[:, i], classes)
            for i in range(predictions.shape[1])
        ]
        return float(np.mean(per_seed))

    return paired_bootstrap(
        first["y_true"],
        _stacked(cells, classes),
        None if reference is None else _stacked(reference, classes),
        score,
        groups=first["groups"],
        random_state=0,
        **options,
    )


def _stacked(cells: pd.DataFrame, classes: np.ndarray | None) -> np.ndarray:
    """Return what a model says with each seed: values, or label and probabilities.

    Of shape (n_scans, n_seeds, 1) or (n_scans, n_seeds, 1 + n_classes).
    """
    if classes is None:
        return np.stack(cells["y_pred"].tolist(), axis=1)[..., None]
    seeds = []
    for predicted, probabilities in zip(cells["y_pred"], cells["y_proba"], strict=True):
        codes = np.searchsorted(classes, predicted)
        if probabilities is None:
            probabilities = np.full((len(codes), len(classes)), np.nan)
        seeds.append(np.column_stack([codes, probabilities]))
    return np.stack(seeds, axis=1)


def _score_stacked(
    metric: str, y: np.ndarray, one: np.ndarray, classes: np.ndarray | None
) -> float:
    """Return the score of one seed of `_stacked`; NaN without what it needs."""
    if classes is None:
        return one_score(metric, y, one[:, 0])
    if np.isnan(one).any() and metric in ("auroc", "log_loss", "brier"):
        return np.nan
    return one_score(metric, y, classes[one[:, 0].astype(int)], one[:, 1:], classes)
