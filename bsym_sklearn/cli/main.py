"""``bsym`` and its commands."""

from __future__ import annotations

import sys
from types import TracebackType

import click

from bsym_sklearn.cli.command import CONTEXT_SETTINGS
from bsym_sklearn.cli.compare import compare
from bsym_sklearn.cli.embed import embed
from bsym_sklearn.cli.evaluate import evaluate
from bsym_sklearn.cli.info import info
from bsym_sklearn.cli.pretrain import pretrain
from bsym_sklearn.cli.report import report
from bsym_sklearn.version import __version__

EPILOG = """\b
Start with these two, and see the --help of each command for more:
  bsym info cohort/
  bsym pretrain cohort/ --out model/

\b
Exit codes:
  0    done
  1    anything unexpected, such as a full disk or a library that is not there
  2    the command line: an unknown option, model, column or value
  3    the data cannot be used
  4    a saved model cannot be used
  5    a training failed
  130  interrupted
"""


class Group(click.Group):
    """Commands in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(self.commands)


@click.group(cls=Group, context_settings=CONTEXT_SETTINGS, epilog=EPILOG)
@click.version_option(__version__, "--version", prog_name="bsym")
def bsym() -> None:
    """Foundation models of brain networks: pretrain, apply and judge them.

    A cohort is a folder with participants.tsv, or a table whose cells are paths; a
    bundle is the folder of a saved model.

    Results go to stdout, all else to stderr.
    """


for one in (info, pretrain, embed, evaluate, compare, report):
    bsym.add_command(one)


def main() -> None:
    """Run ``bsym`` and leave with its exit code.

    Examples
    --------
    >>> main.__name__
    'main'
    """
    sys.excepthook = _say_unexpected
    bsym(prog_name="bsym")


def _say_unexpected(
    kind: type[BaseException], error: BaseException, _: TracebackType | None
) -> None:
    """Say what nobody foresaw in a sentence; Python then leaves with 1."""
    click.echo(
        f"Error: unexpected {kind.__name__}: {error}. Run it with --debug, which shows "
        "where, and report it.",
        err=True,
    )
