"""dlq ls, show, retry."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
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
    permitted_config,
    print_json,
    print_table,
    stop,
)

if TYPE_CHECKING:
    from stream.letters import Letter, Mark, Wanted

app = typer.Typer(no_args_is_help=True, help="Dead letters: count them, look at them, publish them again.")
Reason = Annotated[list[str] | None, typer.Option("--reason", help="Only these dlq.reason (may be repeated).")]
Since = Annotated[str | None, typer.Option("--since", help="Written since: 2h, 3d, or 2026-11-22T10:00:00Z.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Only of this source partition.")]
Which = "PARTITION/OFFSET in the dead-letters topic, or the event's TOPIC/PARTITION/OFFSET/ROW."


@app.command("ls")
@exits
def ls(
    *,
    reason: Reason = None,
    since: Since = None,
    partition: Partition = None,
    limit: Annotated[int, typer.Option(min=1, help="Lines to print, the largest counts first.")] = 50,
    config: ConfigOption = Path(CONFIG_FILE),
    output: OutputOption = Output.TEXT,
) -> None:
    """Count the dead letters by reason, topic and partition."""
    from stream.letter_desk import read_book
    from stream.letters import escaped
    from stream.rights import Use

    book = read_book(permitted_config(config, Use.DLQ_READ), _wanted(reason, since, partition))
    rows = book.counted()
    if output is Output.JSON:
        print_json({
            "letters": len(book.letters), "repeats": book.repeats, "foreign": book.foreign, "rows": [
                {name: value for name, value in row.items() if not name.endswith("_ms")}
                | {"first": _time(row["first_ms"]), "last": _time(row["last_ms"])} for row in rows[:limit]
            ],
        })  # fmt: skip
        return
    cells = [
        [
            escaped(row["reason"]),
            escaped(row["topic"]),
            str(row["partition"]),
            f"{row['letters']:,}",
            f"{row['retried']:,}",
            _time(row["first_ms"]),
            _time(row["last_ms"]),
        ]
        for row in rows[:limit]
    ]
    print_table(["reason", "topic", "partition", "letters", "retried", "first", "last"], cells)
    print(f"{len(book.letters):,} letters, {book.foreign:,} records that are none")


@app.command("show")
@exits
def show(
    letter: Annotated[str, typer.Argument(help=Which)],
    config: ConfigOption = Path(CONFIG_FILE),
    output: OutputOption = Output.TEXT,
) -> None:
    """Print one dead letter: headers, key and payload, with everything that a terminal would obey escaped."""
    from stream.letter_desk import read_book, read_whole
    from stream.letters import shown
    from stream.rights import Use

    settings = permitted_config(config, Use.DLQ_READ)
    book = read_book(settings, _one(letter))
    for found in read_whole(settings, book.letters.values()):
        mark = book.marks.get(found.id)
        if output is Output.JSON:
            print(json.dumps(_described(found, mark), indent=2))  # ASCII: nothing that a terminal would obey
        else:
            print("\n".join(shown(found, mark)))
    if not book.letters:
        stop(f"there is no dead letter {letter}")


@app.command("retry")
@exits
def retry(
    letter: Annotated[str | None, typer.Argument(help=Which)] = None,
    *,
    all_letters: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
    reason: Reason = None,
    since: Since = None,
    partition: Partition = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    config: ConfigOption = Path(CONFIG_FILE),
    output: OutputOption = Output.TEXT,
) -> None:
    """Publish dead letters as they came to where they came from, each once; exit code 1 where one is refused."""
    from stream.letter_desk import read_book
    from stream.letter_desk import retry as publish
    from stream.letters import escaped
    from stream.rights import Use

    chosen = reason or since is not None or partition is not None
    if (letter is not None) + bool(all_letters) + bool(chosen) != 1:
        stop("name one letter, or --all, or some of --reason, --since, --partition", ExitCode.USAGE)
    settings = permitted_config(config, Use.DLQ_RETRY)
    book = read_book(settings, _wanted(reason, since, partition) if letter is None else _one(letter))
    if letter is not None and not book.letters:
        stop(f"there is no dead letter {letter}")
    counts = dict.fromkeys(("retried", "would", "before", "refused"), 0)
    listed: list[dict[str, Any]] = []
    for outcome in publish(settings, book, dry_run=dry_run):
        counts[outcome.state] += 1
        reason_text = escaped(outcome.letter.facts["reason"])
        if output is Output.JSON:
            listed.append({"letter": outcome.letter.id, "state": outcome.state, "text": outcome.text})
        elif outcome.state == "retried":
            print(f"{escaped(outcome.text)} ({reason_text})", flush=True)
        else:
            state = {"would": "would retry", "before": "already:", "refused": "refused"}[outcome.state]
            print(f"{state} {escaped(outcome.letter.id)} ({reason_text}) {escaped(outcome.text)}")
    if output is Output.JSON:
        print_json({"outcomes": listed} | counts)
    else:
        verb = f"{counts['would']:,} would be retried" if dry_run else f"{counts['retried']:,} retried"
        print(f"{verb}, {counts['before']:,} were before, {counts['refused']:,} refused")
    if counts["refused"]:
        raise typer.Exit(int(ExitCode.PROBLEMS))


def _one(text: str) -> Wanted:
    from stream.letters import wanted_one

    try:
        return wanted_one(text)
    except ValueError as error:
        stop(str(error), ExitCode.USAGE)


def _wanted(reason: list[str] | None, since: str | None, partition: int | None) -> Wanted:
    from stream.config_errors import unknown_name
    from stream.deadletter import REASONS
    from stream.letters import Wanted

    for name in reason or ():
        if name not in REASONS:
            stop(f"there is no reason {name}.  {unknown_name(name, REASONS)}", ExitCode.USAGE)
    wanted = Wanted(reasons=tuple(reason or ()), partition=partition)
    return wanted if since is None else replace(wanted, since_ms=_since_ms(since))


def _since_ms(text: str) -> int:
    from stream.quantities import Duration

    try:
        return int(time.time() * 1000) - Duration.parse(text).ms
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        stop(f"--since {text}: neither a duration (2h) nor a time (2026-11-22T10:00:00Z)", ExitCode.USAGE)
    if at.tzinfo is None:
        stop(f"--since {text}: without Z or an offset it is no time", ExitCode.USAGE)
    return int(at.timestamp() * 1000)


def _time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return str(time_ms)


def _described(letter: Letter, mark: Mark | None) -> dict[str, Any]:
    def text(data: bytes | None) -> str | None:
        return None if data is None else data.decode("utf-8", "backslashreplace")

    return {
        "letter": letter.id,
        "place": f"{letter.place[0]}/{letter.place[1]}",
        "written": _time(letter.written_ms),
        "facts": letter.facts,
        "headers": [[name, text(value)] for name, value in letter.headers],
        "key": text(letter.key),
        "payload": text(letter.value),
        "retried": None if mark is None else mark.audit(),
    }
