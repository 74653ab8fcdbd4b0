"""What may be tuned of each model, as Optuna distributions."""

from __future__ import annotations

from typing import Any

from bsym_sklearn.estimators.catalogue import FOUNDATIONS
from bsym_sklearn.estimators.network import NETWORKS
from bsym_sklearn.estimators.registry import model_info
from bsym_sklearn.model.layers import check_choice

LEARNING_RATES = (1e-4, 1e-2)
WEIGHT_DECAYS = (1e-4, 3e-1)
HIGHEST_DROPOUT = 0.6
HIGHEST_HEAD_DROPOUT = 0.9  # what reads every region of a small cohort needs much
LAYER_DECAYS = (0.5, 1.0)
POOLINGS = ("regions", "mean")
TRAINED = ("scratch", "streams", "finetuned")  # rows of a model that learn targets


def search_space(name: str, task: str = "classification") -> dict[str, Any]:
    """Return what may be tuned of a model by name.

    All networks have the same ranges of learning rate and weight decay, and beside them
    what their estimator has of dropout (of its head too), decay by layer and pooling.
    Their sizes are those of `make_model`. Nothing is left to tune of linear models, on
    a frozen embedding too, which choose their strength in `fit`. Blends have no space:
    each of their members would need its own.

    Parameters
    ----------
    name : str
        One of `list_models`.
    task : {"classification", "regression"}, default="classification"
        What is predicted.

    Returns
    -------
    dict of str to optuna.distributions.BaseDistribution
        By the names of the parameters of the estimator that `make_model` returns;
        empty if there is nothing to tune.

    Raises
    ------
    ValueError
        If the name or task is unknown.
    ImportError
        If there is something to tune, but Optuna is not installed.

    Examples
    --------
    >>> from bsym_sklearn import search_space
    >>> sorted(search_space("mean_mlp"))
    ['dropout', 'lr', 'weight_decay']
    >>> search_space("tangent")
    {}
    """
    check_choice(task, model_info(name).tasks, "task")
    backbone, _, row = name.rpartition("-")
    trained = backbone in FOUNDATIONS and row in TRAINED
    if name not in NETWORKS and not trained:
        return {}
    distributions = _optuna_distributions()
    space = {
        "lr": distributions.FloatDistribution(*LEARNING_RATES, log=True),
        "weight_decay": distributions.FloatDistribution(*WEIGHT_DECAYS, log=True),
    }
    if trained:
        space["pooling"] = distributions.CategoricalDistribution(POOLINGS)
    if name in NETWORKS or backbone == "brainsymphony":
        space["dropout"] = distributions.FloatDistribution(0.0, HIGHEST_DROPOUT)
    if backbone == "brainsymphony":
        space["head_dropout"] = distributions.FloatDistribution(
            0.0, HIGHEST_HEAD_DROPOUT
        )
    if name == "brainsymphony-finetuned":
        space["layer_decay"] = distributions.FloatDistribution(*LAYER_DECAYS)
    return space


def _optuna_distributions() -> Any:
    """Return Optuna's distributions, or say how to get them."""
    try:
        from optuna import distributions
    except ImportError as error:
        raise ImportError(
            "search_space needs Optuna. Got no module named 'optuna'. Install "
            "bsym_sklearn[tune]."
        ) from error
    return distributions
