"""topics create, topics list."""

from __future__ import annotations

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
    print_table,
)

app = typer.Typer(no_args_is_help=True, help="The topics that driftline needs.")


@app.command("create")
@exits
def create(
    config: ConfigOption = Path(CONFIG_FILE),
    replication: Annotated[
        int | None, typer.Option(min=1, help="Copies; default 3, or as many as there are brokers.")
    ] = None,
    with_inputs: Annotated[
        int | None, typer.Option(min=1, help="Make the predictions topic too, with so many partitions.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make what is missing; nothing that exists is changed."""
    from stream.admin import create_topics

    made = create_topics(loaded_config(config).config, replication=replication, with_inputs=with_inputs)
    if output is Output.JSON:
        print_json(
            [
                {
                    "role": topic.role.value,
                    "name": topic.name,
                    "partitions": topic.partitions,
                    "replication": topic.replication,
                    "created": topic.created,
                }
                for topic in made
            ]
        )
        return
    rows = [
        [
            topic.name,
            str(topic.partitions),
            str(topic.replication) if topic.created else "",
            "made" if topic.created else "was there",
        ]
        for topic in made
    ]
    print_table(["topic", "partitions", "copies", ""], rows)


@app.command("list")
@exits
def list_topics(config: ConfigOption = Path(CONFIG_FILE), output: OutputOption = Output.TEXT) -> None:
    """Every topic of the configuration, as it is against as it must be; exit code 1 where they differ."""
    from stream.admin import compare_topics

    states = compare_topics(loaded_config(config).config)
    if output is Output.JSON:
        print_json(
            [
                {
                    "role": state.role.value,
                    "name": state.name,
                    "partitions": state.partitions,
                    "difference": state.difference,
                    "detail": state.detail,
                }
                for state in states
            ]
        )
    else:
        rows = [
            [state.name, str(state.partitions or ""), state.difference or "ok", state.detail or state.meaning]
            for state in states
        ]
        print_table(["topic", "partitions", "", ""], rows)
    if any(state.difference for state in states):
        raise typer.Exit(int(ExitCode.PROBLEMS))
