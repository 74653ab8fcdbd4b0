"""``bsym evaluate``: how good is one model, by name or from a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.command import (
    CONTEXT_SETTINGS,
    Command,
    common_options,
    option,
    put,
    say,
)
from bsym_sklearn.cli.files import (
    Source,
    bundle_config,
    check_absent,
    is_bundle,
    open_bundle,
)
from bsym_sklearn.cli.judging import check_model_names, read_task, run_comparison
from bsym_sklearn.cli.options import (
    Judging,
    overwrite_option,
    with_cohort,
    with_judging,
)
from bsym_sklearn.cli.scoring import check_overlap, predict_table, score_bundle

if TYPE_CHECKING:
    import pandas as pd

    from bsym_sklearn.analysis.cohort_task import Task

EMBEDDERS = {
    "BrainSymphonyEmbedder": "brainsymphony",
    "BrainLMEmbedder": "brainlm",
    "BrainJEPAEmbedder": "brain_jepa",
}
EXAMPLES = """
bsym evaluate cohort/ --model brainsymphony-finetuned --target sex
bsym evaluate cohort/ --model model/ --target sex --groups family_id --out scores.json
bsym evaluate other_cohort/ --model classifier/ --target sex
bsym evaluate other_cohort/ --model classifier/ --predict-only > predictions.tsv
"""


@click.command(cls=Command, epilog=EXAMPLES, context_settings=CONTEXT_SETTINGS)
@with_cohort
@option(
    "--model",
    required=True,
    metavar="NAME|BUNDLE",
    help="By name (see bsym compare --list-models), or the folder of a saved model.",
)
@with_judging
@option(
    "--level",
    type=click.Choice(["A", "B", "C"]),
    help="What pretraining may have seen: A, training rows; B, other people; C, the "
    "tested scans too, without targets.  [default: A by name, B for a bundle]",
)
@option(
    "--predict-only",
    is_flag=True,
    help="Print what a saved classifier or regressor says of every scan; no target.",
)
@option(
    "--out",
    type=click.Path(path_type=Path),
    help="File for the scores, or predictions: .json or .tsv.",
)
@overwrite_option
@option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for finished fits, from which the same command goes on.",
)
@option(
    "--json/--text",
    "as_json",
    default=False,
    help="Print JSON, or a table to read.",
)
@common_options
def evaluate(
    source: Source,
    judging: Judging,
    model: str,
    level: str | None,
    predict_only: bool,
    out: Path | None,
    overwrite: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Score one model beside simple ones, or a saved classifier.

    A model by name, or a saved embedder with a linear model on it, is cross-validated
    beside chance and connectivity. A saved classifier or regressor is not fitted again:
    it is judged on all of COHORT, whose people it must not have seen.
    """
    _check_out(out, overwrite)
    folder = Path(model) if is_bundle(Path(model)) else None
    is_fitted = folder is not None and bundle_config(folder)["class"] not in EMBEDDERS
    if predict_only:
        if folder is None or not is_fitted:
            raise click.BadParameter(
                "--predict-only needs a saved classifier or regressor.",
                param_hint="--model",
            )
        _finish_table(predict_table(open_bundle(folder), source.open()), out, as_json)
        return
    if folder is not None and is_fitted:
        summary = score_bundle(open_bundle(folder), source, judging, level or "B")
        notes = [f"{folder.resolve().name} was not fitted again."]
    else:
        summary, notes = _cross_validate(source, judging, model, folder, level, store)
    _finish_scores(summary, notes, judging, out, as_json)


def _cross_validate(
    source: Source,
    judging: Judging,
    model: str,
    folder: Path | None,
    level: str | None,
    store: Path | None,
) -> tuple[pd.DataFrame, list[str]]:
    """Return scores of a model beside its floors, and sentences on them."""
    from bsym_sklearn.analysis.results import summarize
    from bsym_sklearn.analysis.tables import conclusions

    task = read_task(source, judging)
    floor = "tangent" if "fmri" in task.has else "sc"
    floors = ["dummy", *(["confounds"] if task.confounds else []), floor]
    models: dict[str, Any] = {name: name for name in floors}
    if folder is not None:
        label = folder.resolve().name
        if level != "C":
            check_overlap(open_bundle(folder), task.X)
        models |= {f"{label} frozen + linear": _frozen(folder, task, judging)}
    else:
        check_model_names([model], task, option="--model")
        models[model] = model
    level = level or ("A" if folder is None else "B")
    results = run_comparison(
        models if folder is not None else list(models),
        task,
        judging,
        level=level,
        store=store,
    )
    return summarize(results, reference=floor), conclusions(results, reference=floor)


def _frozen(folder: Path, task: Task, judging: Judging) -> Any:
    """Return a linear model on a saved embedder, unfitted."""
    from bsym_sklearn import make_model
    from bsym_sklearn.analysis.cohort_task import GROUP

    config = bundle_config(folder)
    estimator = make_model(
        f"{EMBEDDERS[config['class']]}-frozen",
        task.kind,
        pretrained=str(folder.resolve()),
        group_column=GROUP,
        batch_size=judging.batch_size,
    )
    own = estimator.get_params()
    kept = {
        f"features__{name}": config["params"][name]
        for name in ("t_r", "pooling", "modalities", "n_windows")
        if f"features__{name}" in own and name in config["params"]
    }
    return estimator.set_params(**kept)


def _check_out(out: Path | None, overwrite: bool) -> None:
    """Raise unless the file can be written."""
    if out is None:
        return
    check_absent(out, overwrite=overwrite)
    if out.suffix.lower() not in (".json", ".tsv"):
        raise click.BadParameter(
            f"Needs a file that ends in .json or .tsv. Got '{out}'.", param_hint="--out"
        )


def _finish_scores(
    summary: pd.DataFrame,
    notes: list[str],
    judging: Judging,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the scores, and write them to a file if there is one."""
    from bsym_sklearn.analysis.tables import format_table
    from bsym_sklearn.files import write_atomically

    rows = summary.reset_index(names="label")
    content = {
        "target": judging.target,
        "metric": summary.attrs["metric"],
        "models": json.loads(rows.to_json(orient="records", double_precision=15)),
        "conclusions": notes,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if out is not None:
        is_json = out.suffix.lower() == ".json"
        table = rows.to_csv(sep="\t", index=False, na_rep="n/a")
        write_atomically(out, text + "\n" if is_json else table)
        say(f"The scores are in {out}")
    put(text if as_json else "\n".join([format_table(summary), "", *notes]))


def _finish_table(table: pd.DataFrame, out: Path | None, as_json: bool) -> None:
    """Print predictions, or write them to a file."""
    from bsym_sklearn.files import write_atomically

    is_json = as_json if out is None else out.suffix.lower() == ".json"
    if is_json:
        text = table.to_json(orient="records", indent=2, double_precision=15)
    else:
        text = table.to_csv(sep="\t", index=False, na_rep="n/a").rstrip("\n")
    if out is None:
        put(text)
        return
    write_atomically(out, text + "\n")
    put(str(out))
