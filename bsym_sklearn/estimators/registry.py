"""Every model of a comparison by name, made with the same few settings.

A model is an unfitted estimator that takes a cohort and learns all it learns in `fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bsym_sklearn.estimators.catalogue import (
    MODELS,
    SIZES,
    TASKS,
    Model,
    ModelInfo,
    Settings,
)
from bsym_sklearn.model.layers import check_choice

FAMILIES = ("floor", "classical", "network", "foundation", "ours")
PRETRAIN_EPOCHS = 50


@dataclass(frozen=True)
class Candidate:
    """One row of a comparison.

    Parameters
    ----------
    estimator : estimator
        Unfitted, takes a cohort. A comparison fits clones of it.
    label : str
        What tables call it.
    pretrainer : estimator or None, default=None
        Unfitted embedder that a comparison fits once per split and seed, on the
        training rows, for the estimator to start from.
    pretrained_parameter : str, default="pretrained"
        Parameter of `estimator`, nested ones too (``"features__pretrained"``), that is
        set to the folder in which the fitted `pretrainer` was saved.
    needs : tuple of {"fmri", "sc", "confounds"}, default=()
        What a cohort must have.
    family : {"floor", "classical", "network", "foundation", "ours", "other"}, \
default="other"
        What kind of model it is.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from bsym_sklearn import Candidate
    >>> Candidate(DummyClassifier(strategy="prior"), "chance").family
    'other'
    """

    estimator: Any
    label: str
    pretrainer: Any = None
    pretrained_parameter: str = "pretrained"
    needs: tuple[str, ...] = ()
    family: str = "other"

    @property
    def seeded(self) -> bool:
        """Whether the estimator, or a part of it, has a `random_state`."""
        names = self.estimator.get_params(deep=True)
        return any(name.split("__")[-1] == "random_state" for name in names)


def list_models(
    task: str = "classification",
    *,
    has: Sequence[str] = ("fmri", "sc"),
    family: str | None = None,
) -> list[str]:
    """Return the names of the models that a task and a cohort allow.

    Parameters
    ----------
    task : {"classification", "regression"}, default="classification"
        What is predicted.
    has : sequence of {"fmri", "sc", "confounds"}, default=("fmri", "sc")
        What the cohort has.
    family : {"floor", "classical", "network", "foundation", "ours"} or None, \
default=None
        Of one kind only; None lists all.

    Returns
    -------
    list of str
        From the simplest to the largest.

    Raises
    ------
    ValueError
        If the task or the family is unknown.

    Examples
    --------
    >>> from bsym_sklearn import list_models
    >>> list_models(has=["sc"], family="classical")
    ['sc', 'sc-ridge']
    """
    check_choice(task, TASKS, "task")
    if family is not None:
        check_choice(family, FAMILIES, "family")
    return [
        name
        for name, model in MODELS.items()
        if task in model.info.tasks
        and set(model.info.needs) <= set(has)
        and family in (None, model.info.family)
    ]


def model_info(name: str) -> ModelInfo:
    """Return what is known of a model.

    Parameters
    ----------
    name : str
        One of `list_models`.

    Returns
    -------
    ModelInfo
        Label, family, needs, sizes and reference.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from bsym_sklearn import model_info
    >>> model_info("brainnetcnn").label, model_info("brainlm-frozen").sizes
    ('BrainNetCNN', ('small', 'base', 'large'))
    """
    return _find(name).info


def make_model(
    name: str,
    task: str = "classification",
    size: str | None = None,
    *,
    group_column: str = "participant_id",
    window: int | None = None,
    batch_size: int = 16,
    max_epochs: int | None = None,
    pretrain_epochs: int = PRETRAIN_EPOCHS,
    pretrained: str | Path | None = None,
    confounds: Sequence[str] = (),
    random_state: int | None = None,
) -> Any:
    """Return a model by name, unfitted.

    Parameters
    ----------
    name : str
        One of `list_models`.
    task : {"classification", "regression"}, default="classification"
        What is predicted.
    size : {"small", "base", "large"} or None, default=None
        What two cores train in a minute or so, the estimator's defaults or its next
        published size, and the published size. None is ``"base"``. Models without
        sizes (see `model_info`) take no notice of it.
    group_column : str, default="participant_id"
        Column of X: scans that stay together wherever training rows are divided.
    window : int or None, default=None
        Time points that networks see at once. Connectivity is that of whole scans.
    batch_size : int, default=16
        Scans per step of networks.
    max_epochs : int or None, default=None
        Passes of networks over the scans with their targets. None leaves each to its
        estimator's default.
    pretrain_epochs : int, default=50
        Passes of self-supervision.
    pretrained : str, Path or None, default=None
        Folder of a saved embedder for the models that start from one. With None these
        are pretrained inside `fit`, on its own rows.
    confounds : sequence of str, default=()
        Columns of X that the model ``"confounds"`` reads.
    random_state : int or None, default=None
        Seed of networks.

    Returns
    -------
    estimator
        A classifier or regressor that takes a cohort.

    Raises
    ------
    ValueError
        If the name, task or size is unknown, or the model cannot be made so.

    Notes
    -----
    Regions that never change in a scan are hidden from networks
    (``constant_regions="mask"``), as connectivity cannot see them either.

    Examples
    --------
    >>> from bsym_sklearn import make_model
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> model = make_model("tangent").fit(cohort.data, cohort.target)
    >>> model.predict_proba(cohort.data).shape
    (12, 2)
    """
    model = _find(name)
    settings = Settings(
        task=task,
        size=size or "base",
        group_column=group_column,
        window=window,
        batch_size=batch_size,
        pretrained=pretrained,
        confounds=tuple(confounds),
        random_state=random_state,
        pretrain_epochs=0 if pretrained is not None else pretrain_epochs,
        max_epochs=max_epochs,
    )
    _check(model, settings)
    return model.make(settings)


def make_candidate(
    name: str,
    task: str = "classification",
    size: str | None = None,
    *,
    group_column: str = "participant_id",
    window: int | None = None,
    batch_size: int = 16,
    max_epochs: int | None = None,
    pretrain_epochs: int = PRETRAIN_EPOCHS,
    confounds: Sequence[str] = (),
    random_state: int | None = None,
) -> Candidate:
    """Return a model by name as a row of a comparison.

    Models that share a pretrained one get it from the comparison, once per split and
    seed, instead of pretraining it in each `fit`.

    Parameters
    ----------
    name, task, size, group_column, window, batch_size, max_epochs, pretrain_epochs, \
confounds, random_state
        See `make_model`.

    Returns
    -------
    Candidate
        With a `pretrainer` for the models that are pretrained.

    Raises
    ------
    ValueError
        If the name, task or size is unknown, or the model cannot be made so.

    Examples
    --------
    >>> from bsym_sklearn import make_candidate
    >>> frozen = make_candidate("brainsymphony-frozen", size="small")
    >>> frozen.label, frozen.pretrained_parameter, frozen.seeded
    ('BrainSymphony pretrained, frozen + linear', 'features__pretrained', True)
    """
    model = _find(name)
    settings = Settings(
        task=task,
        size=size or "base",
        group_column=group_column,
        window=window,
        batch_size=batch_size,
        pretrained=None,
        confounds=tuple(confounds),
        random_state=random_state,
        pretrain_epochs=0,
        max_epochs=max_epochs,
    )
    _check(model, settings)
    pretrainer = None
    if model.make_pretrainer is not None:
        pretrainer = model.make_pretrainer(
            replace(settings, pretrain_epochs=pretrain_epochs)
        )
    return Candidate(
        model.make(settings),
        model.info.label,
        pretrainer=pretrainer,
        pretrained_parameter=model.pretrained_parameter,
        needs=model.info.needs,
        family=model.info.family,
    )


def _find(name: str) -> Model:
    """Return the entry of this name."""
    check_choice(name, tuple(MODELS), "name")
    return MODELS[name]


def _check(model: Model, settings: Settings) -> None:
    """Raise if the model cannot be made so."""
    name = model.info.name
    check_choice(settings.task, TASKS, "task")
    check_choice(settings.size, SIZES, "size")
    if settings.task not in model.info.tasks:
        raise ValueError(
            f"The model {name!r} is for {list(model.info.tasks)}. Got task="
            f"{settings.task!r}. Choose one of list_models({settings.task!r})."
        )
    if "confounds" in model.info.needs and not settings.confounds:
        raise ValueError(
            f"The model {name!r} needs `confounds`. Got none. Name columns of X."
        )
    if settings.pretrained is not None and model.make_pretrainer is None:
        raise ValueError(
            f"The model {name!r} starts from no weights. Got pretrained="
            f"{str(settings.pretrained)!r}. Leave it out."
        )
