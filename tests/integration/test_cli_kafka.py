"""The command against a real broker: topics, and a reference from the file to the control topic and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stream.cli import app
from stream.simulated_model import MODEL, Simulation, write_training_file

pytestmark = pytest.mark.kafka
START_MS = 1_763_000_000_000


@pytest.fixture
def config(kafka: Any, prefix: str, tmp_path: Path) -> Path:
    path = tmp_path / "monitor.yaml"
    path.write_text(
        f"kafka: {{bootstrap_servers: {kafka.bootstrap_servers}}}\n"
        f"topics: {{predictions: {prefix}in}}\nprefix: {prefix}\nmonitors: 2\nresolution: 1s\n"
        f"models: {{{MODEL}: {{reference: {{file: a.parquet}}, window: {{every: 5s, min_events: 100}}}}}}\n"
    )
    return path


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process: importing everything anew for each call would take most of the test's time."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_topics_are_created_once_and_listed(config: Path, prefix: str, cli: Any) -> None:
    before = cli("topics", "list")
    assert before.exit_code == 1
    assert "driftline topics create" in before.stdout
    refused = cli("topics", "create")
    assert refused.exit_code == 1
    assert "--with-inputs" in refused.stderr
    made = cli("topics", "create", "--with-inputs", "3", "-o", "json")
    assert made.exit_code == 0, made.stderr
    topics = {topic["role"]: topic for topic in json.loads(made.stdout)}
    assert topics["predictions"]["name"] == f"{prefix}in"
    assert topics["state.collector"]["partitions"] == 3
    assert topics["panes"]["partitions"] == 2
    after = cli("topics", "list")
    assert after.exit_code == 0, after.stdout


def test_a_reference_is_built_promoted_and_rolled_back(config: Path, tmp_path: Path, cli: Any) -> None:
    assert cli("topics", "create", "--with-inputs", "1").exit_code == 0
    ids = []
    for seed in (1, 2):
        write_training_file(tmp_path / "a.parquet", Simulation(seed, 200.0, START_MS), 60_000)
        built = cli("reference", "build", MODEL, "-o", "json")
        assert built.exit_code == 0, built.stderr
        (described,) = json.loads(built.stdout)
        assert described["stored"]
        assert described["rows"] == 60_000
        ids.append(described["reference"])
    assert ids[0] != ids[1]
    looked = cli("reference", "build", "--dry-run", "-o", "json")
    assert json.loads(looked.stdout)[0]["reference"] == ids[1]

    def states() -> dict[str, str]:
        listed = cli("reference", "list", "-o", "json")
        assert listed.exit_code == 0, listed.stderr
        return {entry["reference"]: entry["state"] for entry in json.loads(listed.stdout)}

    assert states() == {ids[0]: "stored", ids[1]: "stored"}
    for reference in ids:
        assert cli("reference", "promote", MODEL, reference[:19]).exit_code == 0
    assert states() == {ids[0]: "before", ids[1]: "active"}
    back = cli("reference", "rollback", MODEL)
    assert back.exit_code == 0, back.stderr
    assert f"{MODEL}: {ids[0]} is active (revision 3)" in back.stdout
    assert states()[ids[0]] == "active"
    assert ids[0][:19] in cli("reference", "list").stdout

    nothing = cli("reference", "rollback", MODEL)
    assert nothing.exit_code == 1
    assert "no reference was active before" in nothing.stderr
    unknown = cli("reference", "promote", MODEL, "sha256:00")
    assert unknown.exit_code == 1
    assert "0 stored references begin with sha256:00" in unknown.stderr
    other = cli("reference", "build", "fruad")
    assert other.exit_code == 2
    assert "did you mean `fraud`?" in other.stderr


def test_a_wrong_topic_is_named_with_its_place_before_anything_starts(
    config: Path, prefix: str, kafka: Any, cli: Any
) -> None:
    kafka.create_topic("wrongly.spelled.in", 1)
    config.write_text(config.read_text().replace(f"predictions: {prefix}in", "predictions: wrongly.speled.in"))
    for command in (["run"], ["check-config", "--connect"]):
        refused = cli(*command)
        assert refused.exit_code == (2 if command == ["run"] else 1)
        assert (
            "monitor.yaml:2:23  topics.predictions: there is no topic wrongly.speled.in on this cluster"
            in refused.stderr
        )
        assert "did you mean `wrongly.spelled.in`?" in refused.stderr
        assert (
            f"monitor.yaml:3:9  prefix: {prefix}panes, {prefix}windows, {prefix}performance and 7 more are not there"
            in refused.stderr
        )
    config.write_text(config.read_text().replace("speled", "spelled"))
    assert cli("topics", "create").exit_code == 0
    config.write_text(config.read_text().replace("monitors: 2", "monitors: 3"))
    wrong = cli("run")
    assert wrong.exit_code == 2
    assert f"{prefix}panes: has 2 partitions, must have 3" in wrong.stderr
