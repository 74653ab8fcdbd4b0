"""What a fitted model is made of, whatever it is wrapped in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline

from bsym_sklearn.estimators.blend import BaseBlend


def count_parameters(model: Any) -> int:
    """Count the numbers that a model has learned: of networks and of linear models.

    Parameters
    ----------
    model : estimator
        Fitted; pipelines, searches and ensembles are looked into. An embedder counts
        without the decoders that only its pretraining needs. A linear model behind a
        rotation (PCA) counts by the features before it.

    Returns
    -------
    int
        0 for a model of neither kind.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> count_parameters(Ridge().fit([[0, 1], [1, 0]], [0, 1]))
    3
    """
    total = 0
    widths: dict[int, int] = {}  # of what a linear model reads, before it is rotated
    for part in parts_of(model):
        if isinstance(part, Pipeline):
            last = part.steps[-1][1]
            linear = [getattr(last, "best_estimator_", last), *_calibrated(last)]
            for _, step in part.steps:
                if isinstance(step, PCA) and hasattr(step, "n_features_in_"):
                    widths |= {id(model): step.n_features_in_ for model in linear}
        if hasattr(part, "net_"):
            is_embedder = hasattr(part, "transform")
            network = part.backbone_ if is_embedder else part.net_.module_
            total += sum(p.numel() for p in network.parameters())
        elif hasattr(part, "coef_") and hasattr(part, "intercept_"):
            n_outputs = part.coef_.shape[0] if part.coef_.ndim > 1 else 1
            width = widths.get(id(part), part.coef_.size // n_outputs)
            total += n_outputs * (width + 1)
    return total


def chosen_parameters(model: Any) -> dict[str, Any]:
    """Return what a fitted model chose itself: by searches, and weights of a blend.

    Parameters
    ----------
    model : estimator
        Fitted; pipelines and ensembles are looked into.

    Returns
    -------
    dict
        The `best_params_` of all searches, of two of one name the first; of a blend
        ``weight of <member>``.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> search = GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2)
    >>> chosen_parameters(search.fit([[0], [1], [2], [3]], [0, 1, 2, 3]))
    {'alpha': 1.0}
    """
    chosen: dict[str, Any] = {}
    for part in parts_of(model):
        chosen = dict(getattr(part, "best_params_", {})) | chosen
        if isinstance(part, BaseBlend):
            names = [f"weight of {name}" for name, _ in part.members]
            chosen |= dict(zip(names, part.weights_.tolist(), strict=True))
    return chosen


def parts_of(model: Any) -> Iterator[Any]:
    """Go through a model and all estimators in its attributes, each once.

    Parameters
    ----------
    model : estimator
        Outermost first.

    Yields
    ------
    estimator

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.linear_model import Ridge
    >>> [type(part).__name__ for part in parts_of(make_pipeline(PCA(), Ridge()))]
    ['Pipeline', 'PCA', 'Ridge']
    """
    waiting, seen = [model], set()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if hasattr(found, "get_params") and not isinstance(found, type):
            yield found
            waiting += [*vars(found).values(), *_calibrated(found)]
        elif isinstance(found, Mapping):
            waiting += list(found.values())
        elif isinstance(found, list | tuple):
            waiting += _few(found)


def _calibrated(model: Any) -> list[Any]:
    """Return the fitted classifiers whose scores a CalibratedClassifierCV corrects."""
    return [pair.estimator for pair in getattr(model, "calibrated_classifiers_", ())]


def _few(values: Iterable[Any]) -> list[Any]:
    """Return what is no number or text, of which lists may hold thousands."""
    return [x for x in values if not isinstance(x, int | float | str)]
