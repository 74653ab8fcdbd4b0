"""Whether region embeddings know the canonical networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from bsym_sklearn.analysis.network_scores import connectivity_rows
from bsym_sklearn.analysis.networks import (
    NetworkScores,
    classify_networks,
    cluster_networks,
)
from bsym_sklearn.plotting.networks import plot_confusion
from bsym_sklearn.report.contents import (
    Part,
    Pictures,
    Section,
    brief,
    make_table,
)
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.pictures import draw

MAX_FOLDS = 5
N_SEEDS = 5  # of k-means
MODEL = "model"


def describe_networks(material: Material) -> Section | None:
    """Return the section on networks, None without names or embeddings of regions.

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
    >>> describe_networks(material) is None
    True
    """
    if material.networks is None or not hasattr(
        material.estimator, "transform_regions"
    ):
        return None
    names = material.networks.astype(object)
    names[material.networks == "none"] = None
    sizes = pd.Series(names).value_counts()
    n_folds = min(MAX_FOLDS, int(sizes.min())) if len(sizes) > 1 else 0
    if n_folds < 2:
        return None
    rows, scores = [], {}
    for label, values in _embeddings(material).items():
        scores[label] = found = classify_networks(
            values,
            names,
            n_folds=n_folds,
            labels=material.regions,
            random_state=material.random_state,
        )
        clusters = cluster_networks(
            values, names, n_seeds=N_SEEDS, random_state=material.random_state
        )
        rows.append(
            {
                "features of a region": label,
                "accuracy": found.accuracy.mean(),
                "SD over folds": found.accuracy.std(ddof=1),
                "ARI of k-means": clusters.ari.mean(),
                "SD over seeds": clusters.ari.std(ddof=1),
            }
        )
    chance = scores[MODEL].chance
    parts: list[Part] = [
        make_table(
            pd.DataFrame(rows),
            "Networks from features of regions",
            formats=dict.fromkeys(list(rows[0])[1:], ".3f"),
            note=f"Accuracy: logistic regression, {n_folds} folds over regions; always "
            f"naming the largest network has {chance:.3f}. ARI: adjusted Rand index of "
            "clusters found without names, 0 by chance and 1 if equal.",
        ),
        *_details(scores[MODEL]),
    ]
    return Section(
        key="networks",
        title="Networks",
        shows=f"Whether regions of one network have similar embeddings, averaged over "
        f"{material.on_how_many()}; beside it the same for rows of the connectivity "
        "and for the same model before training.",
        not_shown="Networks were found from connectivity in the first place. What the "
        "untrained model or connectivity reaches as well was not learned.",
        parts=tuple(parts),
    )


def _embeddings(material: Material) -> dict[str, np.ndarray]:
    """Return features of regions (R, D): of the model, and what to compare it with."""
    model, X = material.estimator, material.some_scans
    found = {MODEL: model.transform_regions(X).mean(axis=0)}
    untrained = _untrained(model)
    if untrained is not None:
        values = untrained.fit(X).transform_regions(X)
        found["the same model, untrained"] = values.mean(axis=0)
    if material.scans.table["fmri"].iloc[material.rows].all():
        found["connectivity"] = connectivity_rows(X)
    return found


def _untrained(model: Any) -> Any:
    """Return an unfitted model that keeps its initial weights, None without one."""
    params = model.get_params(deep=False)
    if not {"max_epochs", "pretrained"} <= params.keys():
        return None
    start = {"max_epochs": 0, "pretrained": None}
    start |= {"warm_start": False, "checkpoint_dir": None}
    return clone(model).set_params(**start)


def _details(scores: NetworkScores) -> list[Part]:
    """Return the confusions and the regions that are named wrongly."""
    confusion = scores.confusion
    drawn = confusion.set_axis(brief(list(confusion.index)))
    drawn.columns = drawn.index
    right = np.trace(confusion.to_numpy()) / confusion.to_numpy().sum()
    size = max(3.0, 1.4 + 0.28 * len(confusion))
    picture = draw(
        lambda ax: plot_confusion(drawn, ax=ax),
        alt=f"Confusion of {len(confusion)} networks; {right:.0%} lie on the diagonal.",
        caption="True networks of held-out regions in rows, predicted ones in columns "
        "(logistic regression on the model's embeddings).",
        height=size,
        width=size + 0.9,
    )
    parts: list[Part] = [Pictures((picture,))]
    if len(scores.misclassified):
        parts.append(
            make_table(
                scores.misclassified.drop(columns="region").rename(
                    columns={"label": "region"}
                ),
                "Regions that are named wrongly, the surest first",
                formats={"probability": ".2f"},
            )
        )
    return parts
