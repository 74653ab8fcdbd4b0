"""What commands read and write: cohorts, bundles, and files that are whole."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.settings import did_you_mean
from bsym_sklearn.exceptions import BrainDataError, CheckpointError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".tsv": "\t", ".csv": ","}
CONFIG = "config.json"  # of every bundle


@dataclass(frozen=True)
class Source:
    """Where the scans are.

    Parameters
    ----------
    cohort : Path or None
        Folder with participants.tsv, or a table whose cells are paths.
    derivatives, sc_derivatives : Path or None
        Folders that preprocessing pipelines wrote.
    atlas, measure : str or None
        Which of the atlases and measures in there.
    entities : tuple of str
        ``KEY=VALUE``: which series.
    on_mismatch : {"error", "skip", "common"}
        What to do when files differ in their regions.

    Examples
    --------
    >>> Source(Path("cohort")).name
    "'cohort'"
    """

    cohort: Path | None
    derivatives: Path | None = None
    sc_derivatives: Path | None = None
    atlas: str | None = None
    measure: str | None = None
    entities: tuple[str, ...] = ()
    on_mismatch: str = "error"

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"'{self.cohort or self.derivatives or self.sc_derivatives}'"

    def open(self) -> pd.DataFrame:
        """Return the cohort; its files are opened later.

        Returns
        -------
        DataFrame
            One row per scan.

        Raises
        ------
        click.UsageError
            If there is no cohort, or more than one.
        BrainDataError
            If it cannot be read.
        """
        from bsym_sklearn.data import load_cohort, load_derivatives

        folders = (self.derivatives, self.sc_derivatives)
        if (self.cohort is None) == (folders == (None, None)):
            raise click.UsageError(
                "Name a cohort: a folder with participants.tsv or a table, or else "
                "folders with --derivatives and --sc-derivatives."
            )
        if self.cohort is None:
            return load_derivatives(
                *folders,
                atlas=self.atlas,
                measure=self.measure,
                fmri_entities=dict(map(_parse_entity, self.entities)) or None,
                on_mismatch=self.on_mismatch,  # type: ignore[arg-type]
            )
        if self.atlas or self.measure or self.entities:
            raise click.UsageError(
                "--atlas, --measure and --entity choose among the files in "
                f"--derivatives. Got them with the cohort {self.name}."
            )
        if self.cohort.is_dir():
            return load_cohort(self.cohort)
        return _read_table(self.cohort)


def check_columns(cohort: pd.DataFrame, source: Source, **columns: str | None) -> None:
    """Raise if an option names a column that a cohort does not have.

    Parameters
    ----------
    cohort : DataFrame
        One row per scan.
    source : Source
        Where it comes from.
    **columns : str or None
        By the name of the option.

    Raises
    ------
    click.BadParameter
        With the nearest name.

    Examples
    --------
    >>> import pandas as pd
    >>> check_columns(pd.DataFrame({"age": [3]}), Source(Path("a")), target="age")
    """
    known = [str(name) for name in cohort.columns if name not in ("fmri", "sc")]
    for option, column in columns.items():
        if column is not None and column not in known:
            raise click.BadParameter(
                f"{source.name} has no column {column!r}. "
                f"{did_you_mean(column, known)}",
                param_hint=f"--{option.replace('_', '-')}",
            )


def is_bundle(folder: Path) -> bool:
    """Say if a path is a folder like those of saved models.

    Examples
    --------
    >>> is_bundle(Path("nowhere"))
    False
    """
    return (folder / CONFIG).is_file()


def open_bundle(folder: Path) -> Any:
    """Return the fitted estimator in a bundle, whatever its class.

    Parameters
    ----------
    folder : Path
        That `save_pretrained` wrote.

    Returns
    -------
    estimator

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or of a class that this version does not know.
    """
    import bsym_sklearn

    name = bundle_config(folder).get("class")
    known = [
        one
        for one in bsym_sklearn.__all__
        if hasattr(getattr(bsym_sklearn, one), "from_pretrained")
    ]
    if name not in known:
        raise CheckpointError(
            f"bsym needs a saved model of this version. Got {name!r} in '{folder}'. "
            "Install the version that wrote it."
        )
    return getattr(bsym_sklearn, name).from_pretrained(folder)


def bundle_config(folder: Path) -> dict[str, Any]:
    """Return the settings in a bundle.

    Parameters
    ----------
    folder : Path
        That `save_pretrained` wrote.

    Returns
    -------
    dict

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    from bsym_sklearn.training.checkpoints import load_bundle

    return load_bundle(folder)[1]


def check_absent(path: Path, *, overwrite: bool) -> None:
    """Raise unless a path is free, or may be written over.

    Parameters
    ----------
    path : Path
        To be written.
    overwrite : bool
        Whether an older one may be replaced.

    Raises
    ------
    click.BadParameter
        If it may not.

    Examples
    --------
    >>> check_absent(Path("new.tsv"), overwrite=False)
    """
    if path.is_dir() or (path.exists() and not overwrite):
        advice = "Choose another." if path.is_dir() else "Add --overwrite."
        raise click.BadParameter(
            f"'{path}' is there already. {advice}", param_hint="--out"
        )


def require_parquet() -> None:
    """Raise unless Parquet files can be read and written.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            "Parquet files need pyarrow, which is not installed. Use .tsv, or install "
            "it with: pip install pyarrow"
        )


def _read_table(path: Path) -> pd.DataFrame:
    """Read a table of scans; relative paths in it start from its folder."""
    import pandas as pd

    from bsym_sklearn.data.folder import RegionTable
    from bsym_sklearn.data.tsv import parse_covariate, read_tsv, with_none

    suffix = path.suffix.lower()
    if suffix == ".parquet":
        require_parquet()
        table = pd.read_parquet(path)
    elif suffix in SEPARATORS:
        table = read_tsv(path, caller="bsym", separator=SEPARATORS[suffix])
    else:
        raise click.UsageError(
            f"A table of scans is a .parquet, .tsv or .csv file. Got '{path}'."
        )
    modalities = [name for name in ("fmri", "sc") if name in table]
    if not modalities or table.empty:
        raise BrainDataError(
            f"bsym needs a table with a row per scan and paths in a column 'fmri' or "
            f"'sc'. Got {len(table)} rows and the columns {list(table.columns)} in "
            f"'{path}'. Write the paths relative to its folder."
        )
    folder = path.resolve().parent
    cohort = table.drop(columns=modalities)
    if suffix in SEPARATORS:
        cohort = pd.DataFrame(cohort.apply(parse_covariate), index=table.index)
    for name in modalities:
        cells = [None if x is None else str(folder / x) for x in with_none(table[name])]
        cohort[name] = pd.Series(cells, index=table.index, dtype=object)
    if (folder / "regions.tsv").is_file():
        regions = read_tsv(folder / "regions.tsv", caller="bsym")
        cohort.attrs["regions"] = RegionTable(regions.apply(parse_covariate))
    return cohort


def _parse_entity(text: str) -> tuple[str, str | None]:
    """Return the two sides of KEY=VALUE; without a value, scans without the key."""
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise click.BadParameter(
            f"Got {text!r}. Write KEY=VALUE, such as task=rest.", param_hint="--entity"
        )
    return key, value or None
