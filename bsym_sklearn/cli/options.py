"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bsym_sklearn.cli.command import MODELS, PIPELINES, option
from bsym_sklearn.cli.files import Source

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
SIZE_HELP = "For two cores; the default of Python; as published."
SIZES = ("small", "base", "large")
MODEL_HELP = "Folder of a saved model."


def with_cohort(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add COHORT and the options in its place; the command gets them as `source`.

    Parameters
    ----------
    command : callable
        Takes `source`, a :class:`~bsym_sklearn.cli.files.Source`.

    Returns
    -------
    callable

    Examples
    --------
    >>> @click.command
    ... @with_cohort
    ... def show(source: Source) -> None:
    ...     click.echo(source.name)
    >>> [param.name for param in show.params][:3]
    ['cohort', 'derivatives', 'sc_derivatives']
    """

    @functools.wraps(command)
    def wrapper(
        *,
        cohort: Path | None,
        derivatives: Path | None,
        sc_derivatives: Path | None,
        atlas: str | None,
        measure: str | None,
        entity: tuple[str, ...],
        on_mismatch: str,
        **options: Any,
    ) -> Any:
        source = Source(
            cohort, derivatives, sc_derivatives, atlas, measure, entity, on_mismatch
        )
        return command(source=source, **options)

    result: Callable[..., Any] = wrapper
    for one in reversed(_source_options()):
        result = one(result)
    return result


def overwrite_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--overwrite``.

    Examples
    --------
    >>> @click.command
    ... @overwrite_option
    ... def write(overwrite: bool) -> None: ...
    >>> write.params[0].opts
    ['--overwrite']
    """
    return option(
        "--overwrite/--no-overwrite",
        default=False,
        help="Replace what is at --out.",
    )(command)


def bundle_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--model``, a bundle.

    Examples
    --------
    >>> @click.command
    ... @bundle_option
    ... def show(model: Path) -> None: ...
    >>> write = show.params[0].required
    >>> write
    True
    """
    return option("--model", type=FOLDER, required=True, help=MODEL_HELP)(command)


@dataclass(frozen=True)
class Judging:
    """What is predicted, by what models, and how they are judged.

    Parameters
    ----------
    target : str
        Column to predict.
    groups : str or None
        Column whose rows stay on one side of a split.
    task : {"auto", "classification", "regression"}
        Kind of target.
    folds, repeats : int
        Of the cross-validation.
    seeds : tuple of int
        Of models that draw.
    confounds : tuple of str
        Columns of the model that sees no brain.
    n_jobs : int
        Fits side by side.
    n_resamples : int
        Of the participants, on one split.
    size, window, batch_size, epochs, pretrain_epochs
        Of models by name.

    Examples
    --------
    >>> Judging("sex").folds
    5
    """

    target: str | None
    groups: str | None = None
    task: str = "auto"
    folds: int = 5
    repeats: int = 1
    seeds: tuple[int, ...] = (0,)
    confounds: tuple[str, ...] = ()
    n_jobs: int = 1
    n_resamples: int = 2000
    size: str = "small"
    window: int | None = None
    batch_size: int = 16
    epochs: int | None = None
    pretrain_epochs: int = 50


def with_judging(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a comparison; the command gets them as `judging`.

    Parameters
    ----------
    command : callable
        Takes `judging`, a :class:`Judging`.

    Returns
    -------
    callable

    Examples
    --------
    >>> @click.command
    ... @with_judging
    ... def show(judging: Judging) -> None: ...
    >>> [param.name for param in show.params][:2]
    ['target', 'groups']
    """
    names = [field.name for field in dataclasses.fields(Judging)]

    @functools.wraps(command)
    def wrapper(**options: Any) -> Any:
        own = {name: options.pop(name) for name in names}
        return command(judging=Judging(**own), **options)

    result: Callable[..., Any] = wrapper
    for one in reversed(_judging_options()):
        result = one(result)
    return result


def _source_options() -> list[Callable[..., Any]]:
    """Return the options that a `Source` is made of."""
    pipelines = functools.partial(option, section=PIPELINES)
    return [
        click.argument(
            "cohort",
            required=False,
            type=click.Path(exists=True, path_type=Path),
            metavar="COHORT",
        ),
        pipelines(
            "--derivatives", type=FOLDER, help="Folder that XCP-D or fMRIPrep wrote."
        ),
        pipelines(
            "--sc-derivatives",
            type=FOLDER,
            help="Folder of QSIRecon or MRtrix, or of HDF5 connectomes.",
        ),
        pipelines("--atlas", help="Which atlas, if there are several."),
        pipelines(
            "--measure", help="Which measure of connection, if there are several."
        ),
        pipelines(
            "--entity",
            multiple=True,
            metavar="KEY=VALUE",
            help="Which series: task=rest; repeat it for more.",
        ),
        pipelines(
            "--on-mismatch",
            type=click.Choice(["error", "skip", "common"]),
            default="error",
            help="When files differ in their regions: stop, skip those that differ "
            "from most, or keep the regions of all.",
        ),
    ]


def _judging_options() -> list[Callable[..., Any]]:
    """Return the options of a comparison."""
    models = functools.partial(option, section=MODELS)
    positive = click.IntRange(min=1)
    return [
        option("--target", metavar="COLUMN", help="Column to predict."),
        option(
            "--groups",
            metavar="COLUMN",
            help="Column whose rows stay on one side of a split.  [default: "
            "participant_id]",
        ),
        option(
            "--task",
            type=click.Choice(["auto", "classification", "regression"]),
            default="auto",
            help="Whether the target is a class or a number.",
        ),
        option(
            "--folds", type=click.IntRange(min=2), default=5, help="Parts to test on."
        ),
        option(
            "--repeats",
            type=positive,
            default=1,
            help="Of the folds, each time shuffled.",
        ),
        option(
            "--seeds",
            many=True,
            type=click.IntRange(min=0),
            default=(0,),
            metavar="N...",
            help="Of models that start at random; each is fitted with all.",
        ),
        option(
            "--confounds",
            many=True,
            metavar="COLUMN...",
            help="Columns, such as age and site, of a model that sees no brain.",
        ),
        option(
            "--n-jobs", type=int, default=1, help="Fits side by side, a thread each."
        ),
        option(
            "--n-resamples",
            type=positive,
            default=2000,
            help="Resamples of the participants, for the interval on a single split.",
        ),
        models("--size", type=click.Choice(SIZES), default="small", help=SIZE_HELP),
        models("--window", type=positive, help="Time points seen at once."),
        models("--batch-size", type=positive, default=16, help="Scans per step."),
        models(
            "--epochs",
            type=positive,
            help="Passes with targets.  [default: each model's own]",
        ),
        models(
            "--pretrain-epochs",
            type=click.IntRange(min=0),
            default=50,
            help="Passes of self-supervision, where a model has it.",
        ),
    ]
