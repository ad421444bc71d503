"""check-config, schema, explain: what the configuration says, before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.commands.shared import (
    CONFIG_FILE,
    ConfigOption,
    ExitCode,
    Output,
    OutputOption,
    exits,
    loaded_config,
    print_json,
    print_table,
    stop,
)

if TYPE_CHECKING:
    from stream.config_errors import Problem
    from stream.sizing import Estimate

MB = 1_000_000


@exits
def check_config(
    config: ConfigOption = Path(CONFIG_FILE),
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the predictions topic, for the estimate.")] = 8,
    rate: Annotated[int, typer.Option(min=1, help="Events per second, for the estimate.")] = 10_000,
    connect: Annotated[bool, typer.Option("--connect", help="Look at the topics of the cluster too.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say everything that is wrong with the configuration, and what it will cost."""
    from stream.config_errors import ConfigError
    from stream.preflight import preflight, topic_problems

    try:
        result = preflight(config, partitions=partitions, events_per_s=rate)
        problems = [*result.problems, *(topic_problems(result.loaded) if connect else ())]
    except ConfigError as error:
        _report(list(error.problems), None, output)
        raise typer.Exit(int(ExitCode.PROBLEMS)) from None
    _report(problems, result.estimate, output)
    if any(problem.severity.value == "error" for problem in problems):
        raise typer.Exit(int(ExitCode.PROBLEMS))


def _report(problems: list[Problem], estimate: Estimate | None, output: Output) -> None:
    if output is Output.JSON:
        data: dict[str, Any] = {"problems": [problem.as_json() for problem in problems]}
        print_json(data | {"estimate": estimate.as_json() if estimate else None})
        return
    for problem in problems:
        print(problem.render(), file=sys.stderr)
    if estimate is None:
        return
    terms = ", ".join(f"{name} {size / MB:.1f}" for name, size in estimate.terms.items())
    print(
        f"about {estimate.total_bytes / MB:.0f} MB for one worker with all partitions: {terms}; "
        f"snapshots {estimate.snapshot_bytes_per_s / MB:.2f} MB/s"
    )
    if estimate.auto_strata_bytes:
        print(
            f"up to {estimate.auto_strata_bytes / MB:.0f} MB more if all targets turn out to need strata (hours, or sizes of "
            "windows): the references can carry them, driftline check-reference says which have them"
        )
    if estimate.performance_panes_bytes_per_s:
        print(
            f"panes of performance up to {estimate.performance_panes_bytes_per_s / MB:.2f} MB/s: of every horizon, and of every age of "
            "`provisional` that is none"
        )
    if estimate.stalled_bytes:
        print(
            f"up to {estimate.stalled_bytes / MB:.0f} MB more if a topic of feedback stalls until as much waits as `feedback` allows"
        )
    if estimate.unpacked_bytes:
        print(
            f"up to {estimate.unpacked_bytes / MB:.0f} MB more if all partitions that are copied to re-keyed topics have to catch up, and "
            "their batches are compressed: they are held unpacked"
        )
    if not problems:
        print("ok")


@exits
def schema(
    name: Annotated[str, typer.Argument(help="config, or an event: prediction, alert, dead_letter.")] = "config",
) -> None:
    """Print the JSON Schema of the configuration (for editors), or of an event."""
    if name == "config":
        from stream.config_schema import json_schema

        print_json(json_schema())
        return
    from stream.config_errors import unknown_name
    from stream.events import json_schemas

    schemas = json_schemas()
    if name not in schemas:
        stop(f"there is no schema {name}.  {unknown_name(name, ['config', *schemas])}", ExitCode.USAGE)
    print_json(schemas[name])


@exits
def explain(
    config: ConfigOption = Path(CONFIG_FILE),
    path: Annotated[str, typer.Argument(help="Only settings whose path contains this.")] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Print every setting in force: its value, where it comes from, what it means."""
    from stream.explain import explain as settings_of
    from stream.explain import warnings
    from stream.preflight import built_references

    loaded = loaded_config(config)
    references = built_references(loaded)
    settings = [item for item in settings_of(loaded, references) if path in item.path]
    for warning in warnings(loaded, references):
        print(f"warning: {warning}", file=sys.stderr)
    if not settings:
        stop(f"no setting's path contains {path!r}")
    if output is Output.JSON:
        print_json([setting.as_json() for setting in settings])
        return
    rows = [[setting.path, setting.value, setting.origin, setting.meaning] for setting in settings]
    print_table(["setting", "value", "from", "meaning"], rows)
