"""The architecture's rules, read off the syntax trees: who may import what, no clock in the core, no pickle, sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for folder in ("detectors", "stream", "load_tests") for p in (ROOT / folder).rglob("*.py"))
CORE = [p for p in SOURCES if p.is_relative_to(ROOT / "detectors")]

#: Modules of `stream` that may do I/O, read clocks or import the client stack. Everything else of `stream` is the pure core.
SHELL = {
    "admin", "app", "assignment", "broker", "broker_files", "broker_guard", "certificates", "cli", "cluster",
    "config_loader", "connection", "copier", "copy_session", "demo", "engine", "failpoints", "give_back", "letter_desk",
    "lifeline", "liveness", "metrics", "owner_record", "probe", "raw_fetch", "references", "rights_check", "sender",
    "simulated_model", "snapshots", "supervisor", "tables", "together", "tokens", "transport", "upkeep", "worker", "worker_main",
}  # fmt: skip
#: The only ones that may import Faust or its driver.
ENGINE = {"app", "cluster", "copier", "copy_session", "engine", "raw_fetch", "tokens", "transport", "snapshots"}
LINES_MAX = 400
FUNCTION_LINES_MAX = 75


def module(path: Path) -> str:
    return path.relative_to(ROOT / "stream").with_suffix("").parts[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}


STREAM = [p for p in SOURCES if p.is_relative_to(ROOT / "stream")]
PURE = [p for p in STREAM if module(p) not in SHELL | {"commands"}]


def test_there_is_something_to_check() -> None:
    assert len(CORE) > 10
    assert len(PURE) > 20


@pytest.mark.parametrize("path", CORE, ids=str)
def test_detectors_are_pure(path: Path) -> None:
    assert not roots(path) & {
        "stream",
        "faust",
        "aiokafka",
        "kafka",
        "asyncio",
        "logging",
        "time",
        "socket",
        "os",
        "random",
    }


@pytest.mark.parametrize("path", PURE, ids=str)
def test_the_core_of_stream_is_pure(path: Path) -> None:
    assert not roots(path) & {"faust", "mode", "aiokafka", "kafka", "asyncio", "socket", "random", "time", "subprocess"}
    assert not calls(path) & {
        "datetime.now",
        "datetime.utcnow",
        "datetime.datetime.now",
        "time.time",
        "np.random.default_rng",
    }


@pytest.mark.parametrize("path", [p for p in STREAM if module(p) not in ENGINE], ids=str)
def test_only_the_engine_room_imports_faust(path: Path) -> None:
    assert not roots(path) & {"faust", "mode", "aiokafka"}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    assert not roots(path) & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
    assert not calls(path) & {"eval", "exec", "yaml.load"}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_sizes(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, f"{node.name} at line {node.lineno}"
