"""What a classifier or regressor says of the scans that it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_regressor
from sklearn.metrics import confusion_matrix

from bsym_sklearn.analysis.cells import class_outputs
from bsym_sklearn.analysis.scores import classification_scores, regression_scores
from bsym_sklearn.analysis.tables import printed
from bsym_sklearn.plotting.networks import plot_confusion
from bsym_sklearn.report.contents import (
    Facts,
    Part,
    Picture,
    Pictures,
    Section,
    brief,
    make_table,
    with_minus,
)
from bsym_sklearn.report.drawings import draw_predictions
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.overlap import describe_overlap
from bsym_sklearn.report.pictures import draw

if TYPE_CHECKING:
    pass

MAX_CLASSES = 12  # of which probabilities are listed and confusions drawn


def describe_predictions(material: Material) -> Section | None:
    """Return the section on predictions, None for a model that makes none.

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
    >>> describe_predictions(material).parts[-1].caption
    'Each scan'
    """
    estimator = material.estimator
    if is_classifier(estimator):
        parts = _of_classes(material)
    elif is_regressor(estimator):
        parts = _of_values(material)
    else:
        return None
    return Section(
        key="predictions",
        title="Predictions",
        shows="What the model says of the scans of this page"
        + ("." if material.scans.y is None else ", and how often it is right."),
        not_shown="Scores on one set of scans have no interval here, and are honest "
        "only for people of whom the model has seen no scan, chosen before any score "
        "was looked at. Compare models with compare(), which takes care of that.",
        parts=(describe_overlap(material), *parts),
    )


def _of_classes(material: Material) -> list[Part]:
    """Return scores, confusions and probabilities of a classifier."""
    estimator, y = material.estimator, material.scans.y
    classes = np.asarray(estimator.classes_)
    known = classes if y is None else np.union1d(classes, y)
    predicted = np.asarray(estimator.predict(material.scans.X))
    outputs, are_probabilities = _outputs(material, known)
    columns: dict[str, Any] = {"predicted": predicted}
    if are_probabilities:
        for i in np.argsort(-outputs.mean(axis=0))[:MAX_CLASSES]:
            columns[f"probability of {known[i]}"] = outputs[:, i]
    if y is None:
        return [_each(material, columns)]
    scores = classification_scores(
        y, predicted, outputs, known, are_probabilities=are_probabilities
    )
    most = float(pd.Series(y).value_counts(normalize=True).max())
    pairs = _scores(scores)
    pairs += (("always the most frequent class", f"{most:.3f}"),)
    parts: list[Part] = [Facts(pairs)]
    if len(known) <= MAX_CLASSES:
        parts.append(Pictures((_confusions(y, predicted, known),)))
    columns |= {"target": y, "right": predicted == y}
    return [*parts, _each(material, columns)]


def _confusions(y: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> Picture:
    """Draw which classes are taken for which."""
    names = brief(list(classes))
    counts = confusion_matrix(y, predicted, labels=classes)
    size = max(2.6, 1.2 + 0.28 * len(names))
    said = [
        f"{name} {counts[i, i]} of {counts[i].sum()}" for i, name in enumerate(names)
    ]
    table = pd.DataFrame(counts, names, names)
    return draw(
        lambda ax: plot_confusion(table, ax=ax, kind="class", unit="scans"),
        alt=f"Confusion of the classes; right are: {', '.join(said)}.",
        caption="Per cent of the scans of a class, and their number: true classes in "
        "rows, predicted ones in columns.",
        height=size,
        width=size + 0.9,
    )


def _of_values(material: Material) -> list[Part]:
    """Return scores and predictions of a regressor."""
    y = material.scans.y
    predicted = np.asarray(material.estimator.predict(material.scans.X), float)
    if y is None:
        return [_each(material, {"predicted": predicted})]
    y = y.astype(float)
    scores = regression_scores(y, predicted)
    said = f"R2 {scores['r2']:.2f}, Pearson r {scores['pearson']:.2f}"
    picture = draw(
        lambda ax: draw_predictions(ax, y, predicted),
        alt=f"Predicted values against the target, a dot per scan: {said}.",
        caption="A dot per scan; on the dashed line predictions are right.",
    )
    columns = {"predicted": predicted, "target": y, "error": predicted - y}
    return [Facts(_scores(scores)), Pictures((picture,)), _each(material, columns)]


def _outputs(material: Material, classes: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return what a classifier ranks by; its predictions if it has nothing else."""
    estimator, X = material.estimator, material.scans.X
    if hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function"):
        return class_outputs(estimator, X, classes)
    predicted = np.asarray(estimator.predict(X))
    return (predicted[:, None] == classes).astype(float), False


def _scores(scores: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    """Return the scores that are defined, as facts."""
    defined = {name: score for name, score in scores.items() if not np.isnan(score)}
    return tuple(
        (printed(name), with_minus(f"{score:.3f}")) for name, score in defined.items()
    )


def _each(material: Material, columns: Mapping[str, Any]) -> Part:
    """Return a row per scan."""
    scans = material.scans
    frame = pd.DataFrame({"scan": scans.table["scan"]})
    if scans.table["participant"].notna().any():
        frame["participant"] = scans.table["participant"]
    frame = frame.assign(**{name: np.asarray(x) for name, x in columns.items()})
    formats = {name: ".3f" for name in frame if name.startswith("probability")}
    return make_table(frame, "Each scan", formats={"scan": ".0f", **formats})
