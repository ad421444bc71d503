"""The README's tables, derived from the registries: `python -m stream.doc_tables README.md` writes them anew.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; tests/unit/test_readme.py holds it to this file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from detectors import REGISTRY, card
from detectors.known_differences import DIFFERENCES
from detectors.performance import METRICS as PERFORMANCE_METRICS
from stream.bad_input import rows as bad_input_rows
from stream.config_errors import ERROR_CODES
from stream.deadletter import REASONS
from stream.events import DeadLetterHeaders
from stream.limits import LIMITS
from stream.metrics import metrics_table
from stream.rights import table as rights_table
from stream.topics import TOPICS

BLOCK = re.compile(r"(<!-- table: ([a-z_]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def topics() -> str:
    rows = [
        (
            f"`{t.role.value}`",
            t.key,
            t.partitions,
            "compacted" if t.retention_d is None else f"{t.retention_d} d",
            t.meaning,
        )
        for t in TOPICS
    ]
    return _markdown(("topic", "key", "partitions", "kept", "what it holds"), rows)


def reasons() -> str:
    return _markdown(("dlq.reason", "meaning"), [(f"`{code}`", meaning) for code, meaning in REASONS.items()])


def bad_input() -> str:
    return _markdown(("row", "what comes in", "what becomes of it"), bad_input_rows())


def dead_letter_headers() -> str:
    """Of the wire model: what is required is always there."""
    rows = [
        (f"`{field.alias}`", "always" if field.is_required() else "where it applies", field.description or "")
        for field in DeadLetterHeaders.model_fields.values()
    ]
    return _markdown(("header", "there", "what it says"), rows)


def limits() -> str:
    """By name: which modules declare some, and in which order they were imported, is no business of the reader's."""
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        if "= limit(" in path.read_text():
            import_module(".".join(("stream", *path.relative_to(package).with_suffix("").parts)))
    rows = [(f"`{x.name}`", f"{x.value:,}", x.why) for _, x in sorted(LIMITS.items())]
    return _markdown(("limit", "value", "why"), rows)


def errors() -> str:
    return _markdown(("code", "meaning"), [(code, meaning) for code, meaning in ERROR_CODES.items()])


def metrics() -> str:
    rows = [(f"`{name}`", kind, labels, meaning) for name, kind, labels, meaning in metrics_table()]
    return _markdown(("metric", "kind", "labels", "meaning"), rows)


def detectors() -> str:
    cards = [card(name) for name in REGISTRY]
    rows = [
        (
            f"`{x.name}`",
            x.entry.family,
            x.entry.reads,
            "always" if x.entry.always else "by name",
            "inside" if x.entry.promise else "outside",
            x.title,
        )
        for x in cards
    ]
    return _markdown(("detector", "family", "reads", "runs", "`false_alarms`", "what it is"), rows)


def catalogue() -> str:
    rows = [
        (f"`{x.name}`", x.guarantee, x.cost, x.settings() or "-", x.source) for x in (card(name) for name in REGISTRY)
    ]
    return _markdown(("detector", "what holds", "cost", "parameters", "source"), rows)


def known_differences() -> str:
    rows = [
        (f"`{x.ours}`", f"`{x.other}`" if "." in x.other else x.other, x.there, x.here, x.size) for x in DIFFERENCES
    ]
    return _markdown(("ours", "theirs", "there", "here", "difference"), rows)


def performance() -> str:
    rows = [
        (f"`{x.name}`", x.title, x.unit or "-", x.direction.value, x.error, x.interval, x.undefined, x.source)
        for x in PERFORMANCE_METRICS.values()
    ]
    return _markdown(("metric", "what it is", "unit", "better", "error", "interval", "undefined", "source"), rows)


def rights() -> str:
    return _markdown(("command", "on", "operations"), rights_table())


TABLES: dict[str, Callable[[], str]] = {
    "topics": topics,
    "reasons": reasons,
    "dead_letter_headers": dead_letter_headers,
    "bad_input": bad_input,
    "limits": limits,
    "errors": errors,
    "rights": rights,
    "metrics": metrics,
    "detectors": detectors,
    "catalogue": catalogue,
    "known_differences": known_differences,
    "performance": performance,
}


def rewritten(text: str) -> str:
    """The text with every table as it must be. Raises KeyError for a table that there is not."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text()))


if __name__ == "__main__":
    main()
