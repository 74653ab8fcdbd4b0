"""``bsym report``: one page about a saved model and the scans it is shown."""

from __future__ import annotations

from pathlib import Path

import click

from bsym_sklearn.cli.command import (
    CONTEXT_SETTINGS,
    Command,
    common_options,
    option,
    put,
)
from bsym_sklearn.cli.files import Source, check_absent, check_columns, open_bundle
from bsym_sklearn.cli.options import bundle_option, overwrite_option, with_cohort

EXAMPLES = """
bsym report cohort/ --model model/ --out report.html
bsym report cohort/ --model classifier/ --target sex --out report.html
"""


@click.command(cls=Command, epilog=EXAMPLES, context_settings=CONTEXT_SETTINGS)
@with_cohort
@bundle_option
@option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File of the page.",
)
@overwrite_option
@option(
    "--target",
    metavar="COLUMN",
    help="Column that a classifier or regressor is judged by.",
)
@option("--title", help="Heading of the page.")
@option(
    "--max-scans",
    type=click.IntRange(min=1),
    default=50,
    help="Scans of which attention and reconstruction are computed.",
)
@option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    help="Draws those scans.",
)
@common_options
def report(
    source: Source,
    model: Path,
    out: Path,
    overwrite: bool,
    target: str | None,
    title: str | None,
    max_scans: int,
    seed: int,
) -> None:
    """Write one HTML page about a saved model and these scans.

    The page loads nothing and can be mailed. It names participants, and is as
    confidential as the scans are.
    """
    from bsym_sklearn.analysis.cohort_task import with_target
    from bsym_sklearn.report import make_report

    check_absent(out, overwrite=overwrite)
    estimator = open_bundle(model)
    X = source.open()
    y = None
    if target is not None:
        check_columns(X, source, target=target)
        X = with_target(X, target)
        y = X.pop(target).to_numpy()
    page = make_report(
        estimator,
        X,
        y,
        path=out,
        title=title,
        max_scans=max_scans,
        random_state=seed,
    )
    put(str(page))
