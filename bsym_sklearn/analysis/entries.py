"""The models of a comparison, and what they may have seen before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator

from bsym_sklearn.analysis.cells import seed_parameters
from bsym_sklearn.analysis.problem import Problem
from bsym_sklearn.analysis.splits import Split
from bsym_sklearn.data import check_cohort
from bsym_sklearn.estimators import registry
from bsym_sklearn.estimators.search_spaces import search_space
from bsym_sklearn.estimators.seen import shared_participants, unpack_participants
from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.training.checkpoints import load_bundle
from bsym_sklearn.training.download import REFERENCE_NAME
from bsym_sklearn.training.hub import resolve_source


@dataclass(frozen=True, eq=False)
class Entry:
    """One model of a comparison.

    Parameters
    ----------
    name : str
        What it was asked for by.
    candidate : Candidate
        What is fitted.
    space : mapping or None
        What may be searched.
    seeded : bool
        Whether it, or what pretrains it, has a `random_state`.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> candidate = registry.Candidate(DummyClassifier(), "chance")
    >>> Entry("dummy", candidate, None, True).starts_from_weights
    False
    """

    name: str
    candidate: registry.Candidate
    space: Mapping[str, Any] | None
    seeded: bool

    @property
    def starts_from_weights(self) -> bool:
        """Whether it has seen scans before it is fitted."""
        return self.candidate.pretrainer is not None or bool(_given_weights(self))


def make_entries(
    models: Sequence[str] | Mapping[str, Any],
    problem: Problem,
    *,
    tuned: bool = False,
    **settings: Any,
) -> list[Entry]:
    """Return the models, each with what there is to search.

    Parameters
    ----------
    models : list of str, or mapping of str to estimator, Candidate or str
        See :func:`~bsym_sklearn.analysis.comparison.compare`.
    problem : Problem
        Scans and targets.
    tuned : bool, default=False
        Whether models by name get their search space.
    **settings
        Of :func:`~bsym_sklearn.estimators.registry.make_candidate`.

    Returns
    -------
    list of Entry

    Raises
    ------
    TypeError
        If `models` is one name.
    ValueError
        If labels clash, or a model lacks what it needs.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> y = np.array([0, 1, 0])
    >>> problem = Problem(np.zeros((3, 2)), y, np.arange(3), "classification")
    >>> [entry.seeded for entry in make_entries({"chance": DummyClassifier()}, problem)]
    [True]
    """
    if isinstance(models, str):
        raise TypeError(
            f"`models` needs to be a list or a mapping. Got {models!r}. Write "
            f"[{models!r}]."
        )
    named = models if isinstance(models, Mapping) else {name: name for name in models}
    if len(named) < len(models):
        raise ValueError(f"compare needs each model once. Got {list(models)}.")
    entries = [
        _entry(name, model, problem, tuned, settings) for name, model in named.items()
    ]
    _check_labels(entries)
    _check_needs(entries, problem, settings.get("confounds", ()))
    return entries


def _entry(
    name: str, model: Any, problem: Problem, tuned: bool, settings: dict[str, Any]
) -> Entry:
    """Return one model, from its name, a candidate or an estimator."""
    space = None
    if isinstance(model, str):
        candidate = registry.make_candidate(model, problem.task, **settings)
        space = search_space(model, problem.task) if tuned else None
        if name != model:  # it was given a label of its own
            candidate = replace(candidate, label=str(name))
    elif isinstance(model, registry.Candidate):
        candidate = model
    else:
        candidate = registry.Candidate(model, str(name))
    parts = [p for p in (candidate.estimator, candidate.pretrainer) if p is not None]
    seeded = any(seed_parameters(part) for part in parts)
    return Entry(str(name), candidate, space, seeded)


def _check_labels(entries: list[Entry]) -> None:
    """Raise if there are no models or two of one label."""
    labels = [entry.candidate.label for entry in entries]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(
            f"compare needs models of different labels. Got {labels}. Rename them."
        )


def _check_needs(
    entries: list[Entry], problem: Problem, confounds: Sequence[str]
) -> None:
    """Raise if a model lacks what it needs."""
    cohort = check_cohort(problem.X, caller="compare")
    columns = [] if cohort.covariates is None else list(cohort.covariates)
    absent = [name for name in confounds if name not in columns]
    if absent:
        raise ValueError(
            f"compare needs the confounds {absent} as columns of X. Got {columns}. "
            "Name others."
        )
    has = (*cohort.modalities, *(("confounds",) if confounds else ()))
    for entry in entries:
        lacking = sorted(set(entry.candidate.needs) - set(has))
        if lacking:
            raise ValueError(
                f"The model {entry.name!r} needs {lacking}. Got a cohort with "
                f"{list(has)}. Leave the model out."
            )


def _given_weights(entry: Entry) -> list[tuple[str, Any]]:
    """Return what a model has learned before: names, with folders or frozen models."""
    candidate = entry.candidate
    parts = [x for x in (candidate.estimator, candidate.pretrainer) if x is not None]
    given: list[tuple[str, Any]] = []
    for part in parts:
        for name, value in {"": part, **part.get_params(deep=True)}.items():
            if isinstance(value, FrozenEstimator):
                given.append((type(value.estimator).__name__, value.estimator))
            elif name.split("__")[-1] == "pretrained" and value is not None:
                given.append((Path(value).name, str(value)))
    return given


def check_weights(
    entry: Entry, problem: Problem, splits: list[Split], level: str, column: str
) -> None:
    """Raise if given weights may have seen a participant that is tested.

    Parameters
    ----------
    entry : Entry
        One model; nothing is checked if it was not given weights.
    problem : Problem
        Scans and their participants.
    splits : list of Split
        With the rows that are tested.
    level : {"A", "B", "C"}
        See :func:`~bsym_sklearn.analysis.comparison.compare`.
    column : str
        Of the scans' participants, for the message.

    Raises
    ------
    ValueError
        Naming how many.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> y = np.array([0, 1, 0])
    >>> problem = Problem(np.zeros((3, 2)), y, np.arange(3), "classification")
    >>> (entry,) = make_entries({"chance": DummyClassifier()}, problem)
    >>> check_weights(entry, problem, [], "A", "participant_id")
    """
    given = _given_weights(entry)
    if not given or level == "C":
        return
    label = entry.candidate.label
    if level == "A":
        names = [name for name, _ in given]
        raise ValueError(
            f"Level 'A' needs all learning within the training rows. Got {label!r} "
            f"with what {names} learned before. Use level='B', or a Candidate with a "
            "pretrainer."
        )
    people = _tested(problem, splits)
    if people is None:
        raise ValueError(
            "Level 'B' needs the participants that are tested, to look for them among "
            f"those that {label!r} has seen. Got none. Name them in the column "
            f"{column!r} or as `groups`, or use level='C'."
        )
    for name, source in given:
        seen = _participants_in(source)
        if not seen:
            raise ValueError(
                "Level 'B' needs weights that say which participants they have seen. "
                f"Got none in {name!r} of {label!r}. Pretrain with `group_column`, or "
                "use level='C'."
            )
        shared = shared_participants(people, seen)
        if shared:
            raise ValueError(
                "Level 'B' needs weights of other participants than the tested ones. "
                f"Got {len(shared)} of {len(people)} that {name!r} of {label!r} has "
                "seen. Test on others, or use level='C'."
            )


def _tested(problem: Problem, splits: list[Split]) -> set[str] | None:
    """Return who is tested, as they are written, None if that is not known of all."""
    if problem.people is None:
        return None
    tested = problem.people[np.concatenate([split.test for split in splits])]
    return None if pd.isna(tested).any() else {str(name) for name in tested}


def _participants_in(source: Any) -> list[str]:
    """Return the hashes of the participants that weights or a model have seen."""
    if not isinstance(source, str):
        before = getattr(source, "pretrained", None)
        if before is not None and not _participants_in(str(before)):
            return []  # it started from weights that do not say
        return list(getattr(source, "participants_", []))
    if source == REFERENCE_NAME:  # published without
        return []
    try:
        _, config = load_bundle(resolve_source(source))
        return unpack_participants(config.get("participants"))
    except CheckpointError:  # e.g. published weights in their own layout
        return []
