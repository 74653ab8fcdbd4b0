"""Whether the predictions that a headline rests on are better than chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bsym_sklearn.analysis.resampling import PermutationTest, Seed, permutation_test
from bsym_sklearn.analysis.results import find_label
from bsym_sklearn.analysis.scores import LOWER_IS_BETTER, headline_metric, one_score


def headline_test(
    results: pd.DataFrame,
    model: str,
    *,
    metric: str | None = None,
    units: ArrayLike | None = None,
    n_permutations: int = 1000,
    random_state: Seed = None,
) -> PermutationTest:
    """Test one model's predictions against shuffled targets of the tested scans.

    The fits stay as they are: what is tested is whether the predictions say anything
    of the targets, not whether the whole analysis, fitted again on shuffled targets,
    would do as well (that is :func:`~bsym_sklearn.analysis.resampling.
    permutation_test`, at the price of all fits). Targets are exchanged between the
    participants of a fold, or, where a participant has several, between the scans of
    a participant. Scores are averaged over
    seeds, then over folds.

    Parameters
    ----------
    results : DataFrame
        Of :func:`~bsym_sklearn.analysis.comparison.compare`; of repeated folds the
        first repeat is used, in which each scan is tested once.
    model : str
        Name or label.
    metric : str or None, default=None
        Score. None: AUROC of two classes, accuracy of more, R2 of values. Folds in
        which it is not defined do not count.
    units : array-like of shape (n_rows,) or None, default=None
        For each row of the scans that were compared, what it is exchanged with, as of
        windows their scan: they all keep one target. None: as said above.
    n_permutations : int, default=1000
        Shuffles; p can be no smaller than 1 / (1 + n_permutations).
    random_state : int, RandomState or None, default=None
        Draws the shuffles.

    Returns
    -------
    PermutationTest
        Scores with a minus where less is better.

    Raises
    ------
    ValueError
        If there is no such model, it has no probabilities, or no fold has a score.

    References
    ----------
    .. [1] Ojala and Garriga (2010). Permutation tests for studying classifier
       performance. JMLR 11, 1833-1863.

    Examples
    --------
    >>> from bsym_sklearn.analysis.comparison import compare
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=16, n_regions=5, n_timepoints=40)
    >>> results = compare(["amplitude"], cohort.data, cohort.target, cv=2)
    >>> test = headline_test(results, "amplitude", n_permutations=99, random_state=0)
    >>> 0.01 <= test.p_value <= 1
    True
    """
    labels = results.drop_duplicates("label").set_index("label")
    cells = results[results["label"] == find_label(labels, model)]
    cells = cells[cells["repeat"] == cells["repeat"].min()]
    folds = [fold for _, fold in cells.groupby("split", sort=False)]
    truth = _of_scans(folds, "y_true")
    groups = _of_scans(folds, "groups").astype(str)
    fold_of = np.repeat(np.arange(len(folds)), [len(f.iloc[0]["rows"]) for f in folds])
    classes = cells.iloc[0]["classes"]
    if metric is None:
        task = "regression" if classes is None else "classification"
        metric = headline_metric(task, 0 if classes is None else len(classes))
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0

    if classes is not None and any(x is None for x in cells["y_proba"]):
        raise ValueError(
            f"headline_test needs probabilities. Got {model!r} without predict_proba. "
            "Calibrate it first, as with CalibratedClassifierCV."
        )

    def score_of(k: int, y: np.ndarray) -> float:
        return float(
            np.mean(
                [
                    one_score(metric, y[fold_of == k], predicted, outputs, classes)
                    for predicted, outputs in folds[k][["y_pred", "y_proba"]].to_numpy()
                ]
            )
        )

    defined = [k for k in range(len(folds)) if np.isfinite(score_of(k, truth))]
    if not defined:
        raise ValueError(
            f"headline_test needs a fold in which {metric!r} is defined. Got none of "
            f"{len(folds)}. Choose another metric, or larger folds."
        )

    def score(y: np.ndarray) -> float:
        return sign * float(np.mean([score_of(k, y) for k in defined]))

    one_target_each = pd.Series(truth).groupby(groups).nunique().max() == 1
    if units is not None:
        members = np.asarray(units)[_of_scans(folds, "rows")].astype(str)
        within = fold_of
    else:
        members, within = (groups, fold_of) if one_target_each else (None, groups)
    return permutation_test(
        score,
        truth,
        blocks=within,
        units=members,
        n_permutations=n_permutations,
        random_state=random_state,
    )


def _of_scans(folds: list[pd.DataFrame], column: str) -> np.ndarray:
    """Return what a column says of the tested scans, fold after fold."""
    return np.concatenate([fold.iloc[0][column] for fold in folds])
