"""``bsym pretrain``: scans in, a saved embedder out."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.command import (
    CONTEXT_SETTINGS,
    DistributedCommand,
    FiniteRange,
    common_options,
    is_main_process,
    option,
    progress,
    put,
    save_settings,
    say,
)
from bsym_sklearn.cli.files import Source, is_bundle
from bsym_sklearn.cli.options import SIZE_HELP, SIZES, overwrite_option, with_cohort
from bsym_sklearn.cli.settings import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

OWN_SETTINGS = b"# bsym pretrain "  # how a file of settings begins
MODELS = ("brainsymphony", "brainlm", "brain_jepa")
EXAMPLES = """
bsym pretrain cohort/ --out model/
bsym pretrain cohort/ --out model/ --size large --epochs 200 --device cuda
bsym pretrain scans.tsv --out model/ --model brainlm --window 120 --t-r t_r
bsym pretrain --derivatives xcp_d/ --atlas 4S456Parcels --entity task=rest --out model/
bsym pretrain cohort/ --out other/ --pretrained model/ --epochs 10 --set mask_ratio=0.3
torchrun --nproc_per_node 8 -m bsym_sklearn.cli pretrain cohort/ --out model/
"""


@click.command(
    cls=DistributedCommand, epilog=EXAMPLES, context_settings=CONTEXT_SETTINGS
)
@with_cohort
@option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the trained model.",
)
@overwrite_option
@option("--model", type=click.Choice(MODELS), default="brainsymphony")
@option(
    "--size",
    type=click.Choice(SIZES),
    default="base",
    help=SIZE_HELP,
)
@option(
    "--epochs",
    type=click.IntRange(min=0),
    default=50,
    help="Passes over the scans.",
)
@option(
    "--window",
    type=click.IntRange(min=1),
    help="Time points seen at once.  [default: the longest scan, at most 200]",
)
@option("--batch-size", type=click.IntRange(min=1), default=16, help="Scans per step.")
@option(
    "--lr",
    type=FiniteRange(min=0, min_open=True),
    help="Peak learning rate.  [default: the model's own]",
)
@option(
    "--t-r",
    metavar="SECONDS|COLUMN",
    help="Repetition time, to which scans are resampled if they differ.",
)
@option(
    "--modalities",
    type=click.Choice(["auto", "fmri", "sc", "both"]),
    default="auto",
    help="What the model reads; auto takes what is there.",
)
@option(
    "--pretrained",
    metavar="BUNDLE",
    help="Start from these weights, of the same regions; sizes come from them.",
)
@option(
    "--group-column",
    default="participant_id",
    metavar="COLUMN",
    help="Participant: validation scans are of other ones.",
)
@option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is drawn.")
@option("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@option(
    "--dtype",
    type=click.Choice(["auto", "float32", "float64", "bfloat16"]),
    default="auto",
    help="Precision; auto is bfloat16 on CUDA.",
)
@option("--n-jobs", type=int, help="Processes that read scans.  [default: none]")
@option(
    "--checkpoint-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the state after each epoch is kept, so that the same command goes on "
    "after a stop.  [default: OUT.checkpoints until it is done]",
)
@option(
    "--set",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other parameter of the estimator; repeat it for more.",
)
@common_options
def pretrain(
    source: Source,
    out: Path,
    overwrite: bool,
    model: str,
    size: str,
    seed: int,
    checkpoint_dir: Path | None,
    parameters: tuple[str, ...],
    **settings: Any,
) -> None:
    """Learn from scans without labels, and save the model.

    COHORT is a folder with participants.tsv, or a table (.parquet, .tsv, .csv) with a
    row per scan and paths in its columns fmri and sc.

    The folder is printed on stdout. The settings are kept beside it, in OUT.toml. A
    command that was stopped goes on where it was when it is given again.
    """
    _check_out(out, overwrite=overwrite)
    default_place = out.with_name(f"{out.resolve().name}.checkpoints")
    kept_settings = out.with_name(f"{out.resolve().name}.toml")
    states = checkpoint_dir or default_place
    _check_beside(
        kept_settings,
        default_place if checkpoint_dir is None else None,
        overwrite=overwrite,
    )
    estimator = _make(model, size, seed, states, parameters, settings)
    X = source.open()
    save_settings(kept_settings)
    begun = time.monotonic()
    estimator.fit(X)
    if is_main_process():
        estimator.save_pretrained(out)
        if checkpoint_dir is None:
            _remove_states(default_place)
    say(_summary(estimator, X, time.monotonic() - begun))
    put(str(out))


def _make(
    model: str,
    size: str,
    seed: int,
    states: Path,
    parameters: tuple[str, ...],
    settings: Mapping[str, Any],
) -> Any:
    """Return the embedder, unfitted."""
    from bsym_sklearn import make_candidate

    estimator = make_candidate(
        f"{model}-frozen",
        size=size,
        window=settings["window"],
        batch_size=settings["batch_size"],
        pretrain_epochs=settings["epochs"],
        group_column=settings["group_column"],
        random_state=seed,
    ).pretrainer
    own = estimator.get_params(deep=False)
    given = {
        name: settings[name]
        for name in ("lr", "modalities", "pretrained", "device", "dtype", "n_jobs")
        if settings[name] is not None
    }
    if "modalities" not in own:
        only_fmri = given.pop("modalities") in ("auto", "fmri")
        if not only_fmri:
            raise click.BadParameter(
                f"{model} reads fmri only.", param_hint="--modalities"
            )
    if settings["t_r"] is not None:
        given["t_r"] = _number_or_text(settings["t_r"])
    given |= {"checkpoint_dir": states, "verbose": progress()}
    given |= dict(_parse(text, own) for text in parameters)
    return estimator.set_params(**given)


def _parse(text: str, known: Mapping[str, Any]) -> tuple[str, Any]:
    """Return a parameter and its value, of the type of its default."""
    name, sign, written = text.partition("=")
    problem = None
    value: Any = None
    if not sign:
        problem = f"Got {text!r}. Write NAME=VALUE, such as mask_ratio=0.3."
    elif name not in known:
        problem = f"There is no parameter {name!r}. {did_you_mean(name, list(known))}"
    else:
        try:
            value = json.loads(written)
        except ValueError:
            value = written
        default = known[name]
        wanted = type(default)
        fits = isinstance(value, int | float if wanted is float else wanted)
        if default is not None and (not fits or isinstance(value, bool) > fits):
            problem = f"{name} is a {wanted.__name__}. Got {written!r}."
    if problem is not None:
        raise click.BadParameter(problem, param_hint="--set")
    return name, value


def _number_or_text(text: str) -> float | str:
    """Return seconds, or the name of a column."""
    try:
        return float(text)
    except ValueError:
        return text


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Raise before a long training if its model could not be saved."""
    problem = None
    if out.is_file():
        problem = "is a file. Name a folder."
    elif out.is_dir() and any(out.iterdir()):
        if not is_bundle(out):
            problem = "holds something else than a model. Choose another."
        elif not overwrite:
            problem = "is there already. Add --overwrite, or choose another."
    if problem is not None:
        raise click.BadParameter(f"'{out}' {problem}", param_hint="--out")


def _check_beside(settings: Path, states: Path | None, *, overwrite: bool) -> None:
    """Raise before files that this command did not write are replaced or removed."""
    own = False
    if settings.is_file():
        with settings.open("rb") as file:
            own = file.read(len(OWN_SETTINGS)) == OWN_SETTINGS
        if not own and not overwrite:
            raise click.BadParameter(
                f"'{settings}', where the settings are kept, is there already. Choose "
                "another folder, or add --overwrite.",
                param_hint="--out",
            )
    if states and states.is_dir() and any(states.iterdir()) and not own:
        raise click.BadParameter(
            f"'{states}', where a stopped training is kept, holds something else. "
            "Choose another folder, or name it as --checkpoint-dir.",
            param_hint="--out",
        )


def _remove_states(folder: Path) -> None:
    """Remove what only a training that was stopped needs."""
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with contextlib.suppress(OSError):  # it holds something else, or was never made
        folder.rmdir()


def _summary(estimator: Any, X: pd.DataFrame, seconds: float) -> str:
    """Return what was trained, on what, and how it went."""
    history = estimator.history_
    people = len(estimator.participants_)
    losses = ""
    if len(history):
        name = "valid_loss" if "valid_loss" in history else "train_loss"
        first, best = history[name].iloc[0], history[name].min()
        losses = f": {name.replace('_', ' ')} {first:.3f}, at best {best:.3f}"
    return (
        f"{type(estimator).__name__}: {len(X)} scans of {people or 'unnamed'} "
        f"participants, {estimator.n_regions_} regions, "
        f"{' and '.join(estimator.modalities_)}, {len(history)} epochs in "
        f"{seconds:.0f} s{losses}."
    )
