"""What all commands share: exit codes, options, how errors are shown, how data are printed."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from stream.config import Config
    from stream.config_loader import LoadedConfig
    from stream.rights import Use

CONFIG_FILE = "monitor.yaml"


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    PROBLEMS = 1  # the command ran and found something wrong, or the broker does not let it in
    USAGE = 2  # the command line or the configuration
    UNREACHABLE = 3  # the broker does not answer


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration.", envvar="DRIFTLINE_CONFIG", show_default=True)
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How data are printed.")]

P = ParamSpec("P")
R = TypeVar("R")


def stop(message: str, code: ExitCode = ExitCode.PROBLEMS) -> NoReturn:
    """End the command with one line on standard error."""
    print(message, file=sys.stderr)
    raise typer.Exit(int(code))


def exits(command: Callable[P, R]) -> Callable[P, R]:
    """The command with every foreseen error as a message and an exit code, instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with foreseen():
            return command(*args, **kwargs)

    return wrapped


@contextmanager
def foreseen() -> Iterator[None]:
    """Errors that have a message of their own. What is not foreseen keeps its traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort, KeyboardInterrupt):
        raise
    except BrokenPipeError:
        sys.stderr.close()  # `| head`: nothing is left to say
        raise typer.Exit(0) from None
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        stop(str(error), code)


# by name, so that no module is imported to find out that its error was not raised
_CODES = {
    "stream.config_errors.ConfigError": ExitCode.USAGE,
    "stream.planning.PlanningError": ExitCode.USAGE,
    "stream.mapping.MappingError": ExitCode.USAGE,
    "stream.tables.TableError": ExitCode.PROBLEMS,
    "stream.replay.ReplayError": ExitCode.PROBLEMS,
    "detectors.reference.BadReference": ExitCode.PROBLEMS,
    "stream.broker.BrokerUnavailableError": ExitCode.UNREACHABLE,
    "stream.connection.KafkaUnreachableError": ExitCode.UNREACHABLE,
    "stream.connection.KafkaRefusedError": ExitCode.PROBLEMS,
    "stream.admin.AdminError": ExitCode.PROBLEMS,
    "stream.references.ReferencesError": ExitCode.PROBLEMS,
    "stream.letter_desk.DeskError": ExitCode.PROBLEMS,
}


def exit_code(error: BaseException) -> ExitCode | None:
    """Code of a foreseen error, by the nearest class that the table names."""
    for kind in type(error).__mro__:
        code = _CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return None


def loaded_config(path: Path) -> LoadedConfig:
    """The configuration; warnings go to standard error."""
    from stream.config_loader import load

    loaded = load(path)
    for warning in loaded.warnings:
        print(warning.render(), file=sys.stderr)
    return loaded


def permitted_config(path: Path, use: Use) -> Config:
    """The configuration, once the cluster grants what the command needs. Raises AdminError, KafkaUnreachableError."""
    from stream.rights_check import require_rights

    config = loaded_config(path).config
    require_rights(config, use)
    return config


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table without frames; the last column wraps."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index < len(columns) - 1)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
