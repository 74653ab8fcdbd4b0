"""What all commands share: sections of help, configs, messages and exit codes."""

from __future__ import annotations

import functools
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bsym_sklearn.cli.settings import read_settings, write_settings
from bsym_sklearn.exceptions import BrainDataError, CheckpointError

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 88}
# Sections of help, in their order.
OPTIONS, MODELS, EVERYWHERE = "Options", "Models", "In every command"
PIPELINES = "Outputs of preprocessing pipelines, in place of COHORT"
SECTIONS = (OPTIONS, MODELS, PIPELINES, EVERYWHERE)
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
DEBUG, QUIET, VERBOSE, SAVE_TO = (f"bsym.{x}" for x in ("debug", "quiet", "v", "save"))


class TrainingError(Exception):
    """A model of a comparison could not be fitted."""


# What is expected to go wrong, and the exit code that says so; the first that fits.
EXIT_CODES: dict[type[Exception], int] = {
    BrainDataError: 3,
    CheckpointError: 4,
    FloatingPointError: 5,
    TrainingError: 5,
    ValueError: 2,  # of a parameter
    ImportError: 1,
    MemoryError: 1,
    OSError: 1,
}


class FiniteRange(click.FloatRange):
    """Numbers of a range, NaN and infinity not among them.

    Examples
    --------
    >>> FiniteRange(min=0).convert("nan", None, None)
    Traceback (most recent call last):
    click.exceptions.BadParameter: nan is not a finite number.
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail with what was got."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Option(click.Option):
    """An option with a section of help, which may take all values that follow.

    Parameters
    ----------
    names : sequence of str
        Flags.
    section : str, default="Options"
        Heading under which it is listed.
    many : bool, default=False
        Whether ``--name a b c`` stands for ``--name a --name b --name c``.
    **attributes
        Of `click.Option`.

    Examples
    --------
    >>> Option(["--models"], many=True).multiple
    True
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        section: str = OPTIONS,
        many: bool = False,
        **attributes: Any,
    ) -> None:
        if many:
            attributes["multiple"] = True
        short = {click.IntRange: "N", FiniteRange: "X", type: "N"}
        kind = type(attributes.get("type"))
        if kind in short:
            attributes.setdefault("metavar", short[kind])
        super().__init__(names, **attributes)
        self.section = section
        self.many = many


option = functools.partial(click.option, cls=Option, show_default=True)


class Command(click.Command):
    """A command with a config, examples, readable errors and exit codes."""

    on_all_ranks = False  # whether processes of torchrun beside the first have a part

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let an option take all values that follow it."""
        flags = {
            flag
            for param in self.params
            if isinstance(param, Option) and param.many
            for flag in param.opts
        }
        return super().parse_args(ctx, _repeat_flags(args, flags))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; say in one paragraph what went wrong."""
        if not (self.on_all_ranks or is_main_process()):
            return None
        with _readable_warnings():
            try:
                if ctx.meta.get(SAVE_TO) is not None:
                    save_settings(ctx.meta[SAVE_TO])
                return super().invoke(ctx)
            except BrokenPipeError:
                raise  # click leaves silently
            except tuple(EXIT_CODES) as error:
                if ctx.meta.get(DEBUG):
                    traceback.print_exc()
                click.echo(f"Error: {error}", err=True)
                ctx.exit(_exit_code(error))
            except KeyboardInterrupt:
                click.echo("Interrupted.", err=True)
                ctx.exit(INTERRUPTED)

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List the options by section."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                sections[getattr(param, "section", EVERYWHERE)].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line}".rstrip() + "\n")


class DistributedCommand(Command):
    """A command that all processes of torchrun run together."""

    on_all_ranks = True


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command has.

    Parameters
    ----------
    command : callable
        To be decorated.

    Returns
    -------
    callable

    Examples
    --------
    >>> @click.command(cls=Command)
    ... @common_options
    ... def greet() -> None:
    ...     say("hello")
    >>> [param.name for param in greet.params]
    ['config', 'save_config', 'verbose', 'quiet', 'debug']
    """
    a_file = click.Path(dir_okay=False, path_type=Path)
    options = [
        option(
            "--config",
            section=EVERYWHERE,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,  # before the options whose defaults it sets
            expose_value=False,
            callback=_use_config,
            help="TOML or JSON file with the same names; the command line wins.",
        ),
        option(
            "--save-config",
            section=EVERYWHERE,
            type=a_file,
            expose_value=False,
            callback=_remember(SAVE_TO),
            help="Write the settings of this run to a TOML file for --config.",
        ),
        option(
            "-v",
            "--verbose",
            section=EVERYWHERE,
            is_flag=True,
            expose_value=False,
            callback=_remember(VERBOSE),
            help="Show the progress even where stderr is no terminal.",
        ),
        option(
            "-q",
            "--quiet",
            section=EVERYWHERE,
            is_flag=True,
            expose_value=False,
            callback=_remember(QUIET),
            help="Say nothing but results and errors.",
        ),
        option(
            "--debug",
            section=EVERYWHERE,
            is_flag=True,
            expose_value=False,
            callback=_remember(DEBUG),
            help="Show where an error comes from.",
        ),
    ]
    for one in reversed(options):
        command = one(command)
    return command


def is_main_process() -> bool:
    """Say if this process may write and print: the first of torchrun, or the only one.

    Examples
    --------
    >>> is_main_process()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """Tell a person something on stderr, unless with ``--quiet``.

    Examples
    --------
    >>> say("nothing to see in a doctest: this is stderr")
    """
    if is_main_process() and not _asked(QUIET):
        click.echo(message, err=True)


def put(result: str) -> None:
    """Print a result on stdout.

    Examples
    --------
    >>> put("0.75")
    0.75
    """
    if is_main_process():
        click.echo(result)


def progress() -> int:
    """Return the `verbose` of estimators: at a terminal, or with ``--verbose``.

    Examples
    --------
    >>> progress() in (0, 1)
    True
    """
    wanted = _asked(VERBOSE) or sys.stderr.isatty()
    return int(wanted and not _asked(QUIET) and is_main_process())


def save_settings(path: Path) -> None:
    """Write the settings of this run, so that ``--config`` repeats it."""
    context = click.get_current_context()
    if not is_main_process():
        return
    values = {
        key: context.params[param.name]
        for key, param in _configurable(context.command).items()
    }
    write_settings(path, values, command=str(context.info_name))


def _configurable(command: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters that a config may set, by the names of their flags."""
    found = {}
    for param in command.params:
        if param.expose_value:
            flag = max(param.opts, key=len)
            found[flag.lstrip("-").replace("-", "_")] = param
    return found


def _use_config(
    ctx: click.Context, _: click.Parameter, path: Path | None
) -> Path | None:
    """Take what a config says as defaults."""
    if path is not None:
        known = _configurable(ctx.command)
        is_list = {key: bool(getattr(p, "multiple", False)) for key, p in known.items()}
        is_flag = {key: bool(getattr(p, "is_flag", False)) for key, p in known.items()}
        values = read_settings(path, is_list, is_flag)
        ctx.default_map = {known[key].name: value for key, value in values.items()}
    return path


def _remember(key: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that keeps a value for all that is called from here."""

    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> Any:
        ctx.meta[key] = value
        if key == DEBUG and value:
            sys.excepthook = sys.__excepthook__
        return value

    return callback


def _asked(key: str) -> bool:
    """Say if an option of the running command is set."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def _repeat_flags(arguments: Sequence[str], flags: set[str]) -> list[str]:
    """Return ``--name a b`` as ``--name a --name b``."""
    found: list[str] = []
    flag: str | None = None  # that values are being collected for
    fresh = False  # whether it has none yet
    for argument in arguments:
        if argument.startswith("-"):
            flag = argument if argument in flags else None
            fresh = True
            found.append(argument)
        else:
            if flag is not None and not fresh:
                found.append(flag)
            found.append(argument)
            fresh = False
    return found


def _exit_code(error: Exception) -> int:
    """Return the exit code of an expected error."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


@contextmanager
def _readable_warnings() -> Iterator[None]:
    """Print warnings as one paragraph each, without places in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield
