"""``bsym embed``: scans and a saved model in, features out."""

from __future__ import annotations

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
    SEPARATORS,
    Source,
    check_absent,
    check_columns,
    open_bundle,
    require_parquet,
)
from bsym_sklearn.cli.options import bundle_option, overwrite_option, with_cohort
from bsym_sklearn.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# What names a scan, kept where it is there.
IDS = ("participant_id", "session_id", "session", "task", "run", "scan_id")
SUFFIXES = (".parquet", *SEPARATORS, ".npz")
EXAMPLES = """
bsym embed cohort/ --model model/ --out features.tsv
bsym embed cohort/ --model model/ --out features.parquet --pooling mean --keep age
bsym embed scans.csv --model model/ --out regions.npz --regions
"""


@click.command(cls=Command, epilog=EXAMPLES, context_settings=CONTEXT_SETTINGS)
@with_cohort
@bundle_option
@option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File: .parquet, .tsv, .csv or .npz.",
)
@overwrite_option
@option(
    "--regions/--scans",
    default=False,
    help="An embedding per region (.npz), or a row of features per scan.",
)
@option(
    "--pooling",
    type=click.Choice(["regions", "network", "mean"]),
    help="Features of a scan: of all regions side by side, or means.  [default: as "
    "the model was trained]",
)
@option(
    "--keep",
    many=True,
    metavar="COLUMN...",
    help=f"Columns to copy, beside {', '.join(IDS)}.",
)
@option("--batch-size", type=click.IntRange(min=1), help="Scans at a time.")
@option("--n-jobs", type=int, help="Processes that read scans.")
@common_options
def embed(
    source: Source,
    model: Path,
    out: Path,
    overwrite: bool,
    regions: bool,
    pooling: str | None,
    keep: tuple[str, ...],
    batch_size: int | None,
    n_jobs: int | None,
) -> None:
    """Turn scans into features with a saved embedder.

    A table has a row per scan: its row number in COHORT in the column scan, what names
    it, and a column per feature. A .npz file holds the same columns, and the arrays
    features (n_scans, n_features) and feature_names; with --regions, embeddings
    (n_scans, n_regions, dim) and regions.
    """
    _check_suffix(out, regions)
    check_absent(out, overwrite=overwrite)
    estimator = open_bundle(model)
    _check_abilities(estimator, regions)
    X = source.open()
    for column in keep:
        check_columns(X, source, keep=column)
    given = {"pooling": pooling, "batch_size": batch_size, "n_jobs": n_jobs}
    estimator.set_params(**{k: v for k, v in given.items() if v is not None})
    if pooling == "network" and not hasattr(estimator, "networks_"):
        raise click.BadParameter(
            "This model knows no networks. It was trained with another pooling.",
            param_hint="--pooling",
        )
    ids = _names_of_scans(X, keep)
    if regions:
        values = estimator.transform_regions(X)
        arrays = {"embeddings": values, "regions": estimator.regions_}
    else:
        values = estimator.transform(X)
        arrays = {
            "features": values,
            "feature_names": estimator.get_feature_names_out(),
        }
    _write(out, ids, arrays)
    say(f"{type(estimator).__name__}: {' x '.join(map(str, values.shape))} numbers.")
    put(str(out))


def _check_suffix(out: Path, regions: bool) -> None:
    """Raise unless a file of this name can hold what is asked for."""
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES or (regions and suffix != ".npz"):
        wanted = "ends in .npz" if regions else f"ends in {', '.join(SUFFIXES)}"
        raise click.BadParameter(
            f"Needs a file that {wanted}. Got '{out}'.", param_hint="--out"
        )
    if suffix == ".parquet":
        require_parquet()


def _check_abilities(estimator: Any, regions: bool) -> None:
    """Raise unless a model can say what is asked for."""
    wanted = "transform_regions" if regions else "transform"
    if not hasattr(estimator, wanted):
        what = "embedding of each region" if regions else "embedding"
        raise click.BadParameter(
            f"{type(estimator).__name__} gives no {what}. Take another model.",
            param_hint="--model",
        )


def _names_of_scans(X: pd.DataFrame, keep: tuple[str, ...]) -> pd.DataFrame:
    """Return the columns that say which scan a row is."""
    names = [name for name in dict.fromkeys((*IDS, *keep)) if name in X]
    table = X[names].reset_index(drop=True)
    table.attrs = {}  # the table of regions is no part of a file
    if "scan" not in table:
        table.insert(0, "scan", range(len(table)))
    return table


def _write(out: Path, ids: pd.DataFrame, arrays: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    import numpy as np
    import pandas as pd

    suffix = out.suffix.lower()
    with replacing(out) as fresh:
        if suffix == ".npz":
            content = {str(name): _plain(ids[name]) for name in ids}
            content |= {name: _plain(values) for name, values in arrays.items()}
            with fresh.open("wb") as file:
                np.savez(file, allow_pickle=False, **content)
            return
        features = pd.DataFrame(arrays["features"], columns=arrays["feature_names"])
        table = pd.concat([ids, features], axis=1)
        if suffix == ".parquet":
            table.to_parquet(fresh, index=False)
        else:
            table.to_csv(fresh, sep=SEPARATORS[suffix], index=False, na_rep="n/a")


def _plain(values: Any) -> np.ndarray:
    """Return numbers as they are and all else as text, which needs no pickle."""
    import numpy as np
    import pandas as pd

    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        return array
    return np.array(["" if pd.isna(x) else str(x) for x in array], dtype=str)
