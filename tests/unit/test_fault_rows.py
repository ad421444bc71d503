"""Every row of the fault list has something that shows it, which exists; the README's table is the registry's."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults.rows import BLOCK, ROWS, rewritten

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WANTED = [f"F{n}" for n in (*range(1, 25), *range(31, 36))]
"""The rows that apply: reloads, receivers, registries and web pages (25 to 30) are of parts that there are not."""


def names(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def texts(path: Path) -> set[object]:
    """Constants of the file, ids of parameters among them."""
    return {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}


def test_every_row_is_there() -> None:
    assert list(ROWS) == WANTED


@pytest.mark.parametrize("shown", sorted({shown for row in ROWS.values() for shown in row.shown}))
def test_what_shows_a_row_exists(shown: str) -> None:
    if shown.startswith("python -m "):
        module, *arguments = shown.removeprefix("python -m ").split()
        assert find_spec(module)
        if module == "load_tests.faults":
            from load_tests.faults.__main__ import rows

            assert arguments[0] in rows()
        return
    file, _, test = shown.partition("::")
    assert (ROOT / file).is_file()
    if test:
        name, _, parameter = test.rstrip("]").partition("[")
        assert name in names(ROOT / file)
        assert not parameter or parameter in texts(ROOT / file)


@pytest.mark.parametrize("row", WANTED)
def test_every_row_has_a_test_or_a_short_command(row: str) -> None:
    """A command of minutes alone is run by nobody: only a soak may be that."""
    shown = ROWS[row].shown
    assert any(place.startswith("tests/") for place in shown) or row == "F35"


def test_no_parameter_of_the_fault_tests_is_left_out() -> None:
    """What carries a row's number in its id stands in the registry, under that row."""
    found = set()
    for file in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        found |= {
            text for text in texts(file) if isinstance(text, str) and re.fullmatch(r"F\d+-[\w-]*[a-z][\w-]*", text)
        }
    for text in found:
        rows = re.findall(r"F\d+(?=-)", str(text))
        assert any(f"[{text}]" in shown for row in rows for shown in ROWS[row].shown), text


def test_the_readme_has_the_table() -> None:
    assert BLOCK.search(README)
    assert rewritten(README) == README, "python -m tests.faults.rows README.md"
