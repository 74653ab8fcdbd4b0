"""Numbers that papers print, beside those measured here.

`paper_results.csv` has one printed number per line. `accuracy` and the other names of
`bsym_sklearn.analysis.scores` mean the same as there, as fractions; a name that ends in
`_as_printed` is of a score whose definition the source leaves open (which F1, which
correlation, the scale of a squared error), and is therefore in a column of its own.
`evidence` is A for primary material that was read, B for one secondary page that quotes
it, C for third-hand.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("paper_results.csv")
CONTEXT = ["cohort", "modality", "protocol"]
ORIGIN = ["source", "evidence", "note"]


def paper_results() -> pd.DataFrame:
    """Return all printed numbers, one per row."""
    return pd.read_csv(FILE, keep_default_na=False)


def paper_rows(
    task: str, *, cohort: str | None = None, modality: str | None = None
) -> pd.DataFrame:
    """Return one row per printed model of a task, with a column per score.

    Parameters
    ----------
    task : str
        Such as "sex" or "age", see the column of the file.
    cohort, modality : str or None
        Keep these only, such as "HCP-Aging" and "fmri+sc".

    Returns
    -------
    DataFrame
        Named by the model; where it was tested, the scores (NaN if not printed), and
        where they were printed.

    Raises
    ------
    ValueError
        If there is no such row.
    """
    numbers = paper_results()
    wanted = {"task": task, "cohort": cohort, "modality": modality}
    for column, value in wanted.items():
        if value is None:
            continue
        if not numbers[column].eq(value).any():
            raise ValueError(
                f"paper_rows needs a printed {column}. Got {value!r}. Take one of "
                f"{numbers[column].unique().tolist()}."
            )
        numbers = numbers[numbers[column] == value]
    key = ["model", *CONTEXT, "source", "evidence"]
    groups = numbers.groupby(key, sort=False)
    notes = groups["note"].agg(lambda notes: "; ".join(filter(None, notes.unique())))
    scores = numbers.pivot_table(index=key, columns="metric", values="value")
    metrics = numbers["metric"].unique().tolist()
    table = scores.reindex(notes.index)[metrics].join(notes).reset_index()
    return table.set_index("model")[[*CONTEXT, *metrics, *ORIGIN]]


def beside(
    summary: pd.DataFrame,
    task: str,
    *,
    measured_on: str,
    cohort: str | None = None,
    modality: str | None = None,
) -> pd.DataFrame:
    """Return the models of a comparison above those that papers print.

    Different people, splits and scans: the two halves do not rank each other.

    Parameters
    ----------
    summary : DataFrame
        As `bsym_sklearn.analysis.results.summarize` returns it.
    task, cohort, modality
        Which printed rows, see `paper_rows`.
    measured_on : str
        Cohort of the summary.

    Returns
    -------
    DataFrame
        The columns of `paper_rows`, and the headline score of the summary if no paper
        prints it.
    """
    printed = paper_rows(task, cohort=cohort, modality=modality)
    context = [*CONTEXT, *ORIGIN]
    scores = [name for name in printed if name not in context]
    headline = summary.attrs.get("metric")
    if headline is not None and headline not in scores:
        scores.insert(0, headline)
    here = summary.reindex(columns=scores)
    here = here.assign(cohort=measured_on, source="measured here").rename_axis("model")
    table = pd.concat([here, printed])
    return table[[*CONTEXT, *scores, *ORIGIN]].fillna(dict.fromkeys(context, ""))
