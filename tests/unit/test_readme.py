"""The README says what the code says: its tables come from the registries, its commands and paths exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from stream import doc_tables
from stream.cli import app
from stream.config import config_from
from stream.decode import decode, records_from_lines
from stream.mapping import NATIVE, Layout

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_every_table_is_there_and_as_the_registries_say() -> None:
    assert {match[2] for match in doc_tables.BLOCK.finditer(README)} == set(doc_tables.TABLES)
    assert doc_tables.rewritten(README) == README, "python -m stream.doc_tables README.md"


def test_an_old_table_is_seen() -> None:
    assert doc_tables.rewritten(README.replace("`malformed_json`", "`malformed`")) == README


COMMANDS = sorted({match.strip() for match in re.findall(r"^driftline ([a-z-]+(?: [a-z]+)?)", README, re.MULTILINE)})


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command: str) -> None:
    group = get_command(app)
    first, _, second = command.partition(" ")
    found = group.commands[first]  # type: ignore[attr-defined]
    if second and hasattr(found, "commands"):
        assert second in found.commands


def test_every_path_exists() -> None:
    paths = set(re.findall(r"`((?:stream|detectors|tests|load_tests|\.docker)/[\w./-]*)`", README))
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]


LOAD_TESTS = sorted({
    match
    for text in (README, (ROOT / "Makefile").read_text().replace("$(ARGS)", "").replace("$$", ""))
    for match in re.findall(r"python -m (load_tests[^`#;|\n…]*)", text)
})  # fmt: skip


class Parsed(Exception):  # noqa: N818 - what is waited for
    """The command's arguments are right; it goes no further."""


def test_there_are_load_tests() -> None:
    assert len({command.split()[0] for command in LOAD_TESTS}) >= 20


@pytest.mark.parametrize("command", LOAD_TESTS)
def test_every_load_test_takes_the_arguments_that_it_is_called_with(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *arguments: object) -> None:
        parse(self, *arguments)  # type: ignore[call-overload]
        raise Parsed

    name, *arguments = shlex.split(command)
    arguments = ["1" if argument == "seed" else argument for argument in arguments]
    module = importlib.import_module(name if (ROOT / f"{name.replace('.', '/')}.py").exists() else f"{name}.__main__")
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(Parsed):
        module.main()


def test_the_two_commands_stand_at_the_top() -> None:
    top = README[:1500]
    assert "make demo" in top
    assert "make test" in top


def test_the_configurations_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    least, *sections = (YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    config_from(least)
    for section in sections:
        config_from(least | section)
    shown = [section["kafka"]["security"] for section in sections if "kafka" in section]
    assert any("detectors" in model for section in sections for model in section.get("models", {}).values())
    assert {"SCRAM-SHA-512", "OAUTHBEARER"} <= {security.get("mechanism") for security in shown}
    assert any("key_password" in security for security in shown)
    (mapping,) = re.findall(r"`(topics: \{.*?\}\}\})`", README)
    config_from(least | YAML(typ="safe").load(mapping))
    (event,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    layout = Layout.compile(NATIVE, ("fraud",), ("features.amount",))
    assert len(decode(records_from_lines([event.replace("\n", "").encode()], timestamp_ms=0), layout)) == 1
