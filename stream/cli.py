"""The command `driftline`. Only typer is imported before a command runs, so that --help answers at once."""

from __future__ import annotations

import typer

from stream.commands import check_reference, configuration, dlq, reference, topics, work

app = typer.Typer(
    name="driftline",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # its traceback shows local variables, and these may hold secrets
    help="Watches machine-learning models that publish their predictions to Kafka, and says when they drift.",
)
app.command("demo")(work.demo)
app.command("check-config")(configuration.check_config)
app.command("check-reference")(check_reference.check_reference)
app.command("schema")(configuration.schema)
app.command("explain")(configuration.explain)
app.add_typer(topics.app, name="topics")
app.add_typer(reference.app, name="reference")
app.add_typer(dlq.app, name="dlq")
app.command("run")(work.run)
app.command("replay")(work.replay)
app.command("broker")(work.broker)


@app.command("version")
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(installed("driftline"))


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
