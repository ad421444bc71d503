"""topics create, topics list, topics rights."""

from __future__ import annotations

import shlex
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
    permitted_config,
    print_json,
    print_table,
    stop,
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
    from stream.rights import Use

    made = create_topics(permitted_config(config, Use.TOPICS_CREATE), replication=replication, with_inputs=with_inputs)
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
    from stream.rights import Use

    states = compare_topics(permitted_config(config, Use.TOPICS_LIST))
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


@app.command("rights")
@exits
def show_rights(
    config: ConfigOption = Path(CONFIG_FILE),
    principal: Annotated[str, typer.Option(help="Whom kafka-acls shall grant them to.")] = "User:driftline",
    use: Annotated[str | None, typer.Option("--for", help="Only of this command, as run or `topics create`.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """The least rights that each command needs on a cluster with an authorizer, and the arguments of kafka-acls; no broker is asked."""
    from stream.config_errors import unknown_name
    from stream.rights import ALSO, Use, rights

    settings = loaded_config(config).config
    if use is not None and use not in set(Use):
        stop(f"{use} is not known.  {unknown_name(use, list(Use))}", ExitCode.USAGE)
    chosen = [Use(use)] if use is not None else list(Use)
    if output is Output.JSON:
        print_json(
            [
                {
                    "use": right.use.value,
                    "resource": right.resource,
                    "name": right.name,
                    "operations": [operation.value for operation in right.operations],
                    "kafka_acls": right.acls_arguments(principal),
                }
                for one in chosen
                for right in rights(settings, one)
            ]
        )
        return
    for one in chosen:
        print(one.value + (f" ({ALSO[one]})" if one in ALSO else ""))
        for right in rights(settings, one):
            print(f"  {right.resource} {right.name}: {', '.join(right.operations)}")
        for right in rights(settings, one):
            print(f"  kafka-acls.sh {shlex.join(right.acls_arguments(principal))}")
