"""run, replay, demo, broker: the commands that process events or keep something running."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    stop,
)


@exits
def run(
    config: ConfigOption = Path(CONFIG_FILE),
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes on this machine; one a core.")] = 1,
    drain: Annotated[
        bool, typer.Option("--drain", help="End once everything that is in the topic now is processed.")
    ] = False,
) -> None:
    """Watch the predictions topic until told to stop; more machines that run the same share the work."""
    from stream.config_errors import ConfigError
    from stream.connection import KafkaRefusedError, KafkaUnreachableError
    from stream.preflight import topic_problems
    from stream.rights import Use
    from stream.supervisor import run_supervisor

    loaded = loaded_config(config)  # what is wrong with it is said once, before any process starts
    try:
        problems = topic_problems(loaded, Use.RUN)
    except KafkaRefusedError:
        raise
    except KafkaUnreachableError as error:
        print(error, file=sys.stderr)  # the workers go on trying: a broker may start after them
        problems = []
    if problems:
        raise ConfigError(problems)
    raise typer.Exit(run_supervisor(config, workers, drain))


@exits
def replay(
    events: Annotated[Path, typer.Argument(help="JSON lines, Parquet or CSV; - reads JSON lines from standard input.")],
    config: ConfigOption = Path(CONFIG_FILE),
    output: OutputOption = Output.TEXT,
    *,
    clicks: Annotated[Path | None, typer.Option(help="JSON lines of topics.clicks.")] = None,
    conversions: Annotated[Path | None, typer.Option(help="JSON lines of topics.conversions.")] = None,
    labels: Annotated[Path | None, typer.Option(help="JSON lines of topics.labels.")] = None,
) -> None:
    """Run the same pipeline over a file, in one process and without a broker, and print its alerts."""
    from stream.replay import replay as run_replay

    loaded = loaded_config(config)
    if str(events) != "-" and not events.is_file():
        stop(f"{events} is not there", ExitCode.USAGE)
    feedback = {"clicks": clicks, "conversions": conversions, "labels": labels}
    given = {stream: path for stream, path in feedback.items() if path is not None}
    result = run_replay(loaded.config, sys.stdin.buffer if str(events) == "-" else events, feedback=given)
    if output is Output.JSON:
        print_json(result.as_json())
        return
    from stream.terminal import render_alert

    for alert in result.alerts:
        print(render_alert(alert))
    print(result.summary())


@exits
def demo(
    duration: Annotated[float | None, typer.Option(help="Seconds until it ends by itself; without it: Ctrl-C.")] = None,
    seed: Annotated[int, typer.Option(help="Of the simulated model.")] = 1,
) -> None:
    """Start a real Kafka, a simulated model with a scripted drift and one worker, and print the first alert."""
    from stream.demo import run_demo

    raise typer.Exit(run_demo(duration=duration, seed=seed))


@exits
def broker(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 9092,
    data: Annotated[
        Path | None, typer.Option(help="Folder that keeps the data; without it they are gone at the end.")
    ] = None,
) -> None:
    """Run Apache Kafka for development, on loopback, until Ctrl-C."""
    from stream.broker import run_broker

    raise typer.Exit(run_broker(port, data))
