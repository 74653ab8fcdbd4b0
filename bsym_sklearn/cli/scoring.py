"""What a saved classifier or regressor says of scans, and how good that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.command import say
from bsym_sklearn.cli.embed import IDS
from bsym_sklearn.cli.files import Source
from bsym_sklearn.cli.judging import check_task_columns
from bsym_sklearn.cli.options import Judging
from bsym_sklearn.exceptions import BrainDataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def predict_table(estimator: Any, X: pd.DataFrame) -> pd.DataFrame:
    """Return a row per scan with what a model says of it.

    Parameters
    ----------
    estimator : classifier or regressor
        Fitted.
    X : DataFrame
        One row per scan.

    Returns
    -------
    DataFrame
        ``scan`` (row number), what names it, ``predicted`` and, of a classifier,
        ``probability_<class>``.

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=4)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> list(predict_table(model, cohort.data))[:3]
    ['scan', 'participant_id', 'predicted']
    """
    table = X[[name for name in IDS if name in X]].reset_index(drop=True)
    table.insert(0, "scan", range(len(table)))
    if not hasattr(estimator, "classes_"):
        return table.assign(predicted=estimator.predict(X))
    p = estimator.predict_proba(X)
    columns = {f"probability_{c}": p[:, i] for i, c in enumerate(estimator.classes_)}
    return table.assign(predicted=estimator.classes_[p.argmax(axis=1)], **columns)


def score_bundle(
    estimator: Any, source: Source, judging: Judging, level: str
) -> pd.DataFrame:
    """Judge a fitted model on a cohort that it has not seen.

    Parameters
    ----------
    estimator : classifier or regressor
        Fitted.
    source : Source
        Where the scans are.
    judging : Judging
        Target, and the column whose scans are resampled together.
    level : {"B", "C"}
        Whether it may have seen these people.

    Returns
    -------
    DataFrame of one row
        As :func:`~bsym_sklearn.analysis.results.summarize` returns it.

    Raises
    ------
    BrainDataError
        If a label is none of the model's, or it has seen people of the cohort.
    """
    import numpy as np
    import pandas as pd

    from bsym_sklearn.analysis.cohort_task import with_target
    from bsym_sklearn.analysis.fitted import count_parameters
    from bsym_sklearn.analysis.results import summarize

    if judging.target is None:
        raise click.UsageError("Missing option '--target'.")
    X = source.open()
    check_task_columns(X, source, judging)
    X = with_target(X, judging.target)
    if level != "C":
        check_overlap(estimator, X)
    y = X.pop(judging.target)
    said, scores = _predictions(estimator, X, y)
    groups = judging.groups or "participant_id"
    members = X[groups] if groups in X else pd.Series(range(len(X)))
    row = {
        "model": type(estimator).__name__,
        "label": type(estimator).__name__,
        "family": "other",
        "split": "external",
        "seed": 0,
        "level": level,
        **scores,
        **said,
        "groups": members.astype(str).to_numpy(),
        "seconds": 0.0,  # it was not fitted
        "seconds_predict": np.nan,
        "peak_memory_mb": 0.0,
        "n_parameters": count_parameters(estimator),
        "degenerate": len(np.unique(said["y_pred"])) == 1,
        "test_fraction": 1.0,
    }
    summary = summarize(pd.DataFrame([row]), n_resamples=judging.n_resamples)
    return summary.drop(columns=["seconds_predict"])


def check_overlap(estimator: Any, X: pd.DataFrame) -> None:
    """Raise if a model has seen people of a cohort.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : DataFrame
        One row per scan.

    Raises
    ------
    BrainDataError
        If it has.

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort, others = make_cohort(n_scans=12, n_regions=4), make_cohort(n_scans=2)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> check_overlap(model, others.data.assign(participant_id=["new-1", "new-2"]))
    """
    from bsym_sklearn.analysis.fitted import parts_of
    from bsym_sklearn.estimators.seen import shared_participants

    column = getattr(estimator, "group_column", "participant_id")
    parts = parts_of(estimator)
    seen = {name for part in parts for name in getattr(part, "participants_", ())}
    if not seen or column not in X:
        say(
            "Warning: whether the model has seen these people is not known: it, or the "
            "cohort, does not name them."
        )
        return
    names = set(X[column].astype(str))
    shared = shared_participants(names, seen)
    if shared:
        raise BrainDataError(
            f"bsym evaluate needs other people than those that the model was trained "
            f"on. Got {len(shared)} of {len(names)} that it has seen. Take others, or "
            "--level C, which says so in the table."
        )


def _predictions(
    estimator: Any, X: pd.DataFrame, y: pd.Series
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what a model says beside the truth, and its scores."""
    from bsym_sklearn.analysis.scores import classification_scores, regression_scores

    if not hasattr(estimator, "classes_"):
        truth = y.astype(float).to_numpy()
        predicted = estimator.predict(X)
        said = {"y_true": truth, "y_pred": predicted, "y_proba": None, "classes": None}
        return said, regression_scores(truth, predicted)
    classes = estimator.classes_
    labels = _as_labels(y, classes)
    p = estimator.predict_proba(X)
    predicted = classes[p.argmax(axis=1)]
    said = {"y_true": labels, "y_pred": predicted, "y_proba": p, "classes": classes}
    return said, classification_scores(labels, predicted, p, classes)


def _as_labels(y: pd.Series, classes: np.ndarray) -> np.ndarray:
    """Return targets as the labels of a model."""
    import numpy as np

    texts = {str(label): label for label in classes.tolist()}
    # a column of 0, 1 and a missing one is read as 0.0 and 1.0
    texts |= {str(float(x)): x for x in classes.tolist() if isinstance(x, int)}
    whole = [x for x in classes.tolist() if isinstance(x, float) and x.is_integer()]
    texts |= {str(int(x)): x for x in whole}
    for i, value in enumerate(y):
        if str(value) not in texts:
            raise BrainDataError(
                f"bsym evaluate needs labels that the model knows. Got {value!r}, "
                f"first in scan {i}. It knows {classes.tolist()}."
            )
    return np.array([texts[str(value)] for value in y], dtype=classes.dtype)
