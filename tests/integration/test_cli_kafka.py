"""The command against a real broker: topics, and a reference from the file to the control topic and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


def test_topics_are_created_once_and_listed(config: Path, prefix: str, run_cli: Any) -> None:
    before = run_cli("topics", "list")
    assert before.returncode == 1
    assert "driftline topics create" in before.stdout
    refused = run_cli("topics", "create")
    assert refused.returncode == 1
    assert "--with-inputs" in refused.stderr
    made = run_cli("topics", "create", "--with-inputs", "3", "-o", "json")
    assert made.returncode == 0, made.stderr
    topics = {topic["role"]: topic for topic in json.loads(made.stdout)}
    assert topics["predictions"]["name"] == f"{prefix}in"
    assert topics["state.collector"]["partitions"] == 3
    assert topics["panes"]["partitions"] == 2
    after = run_cli("topics", "list")
    assert after.returncode == 0, after.stdout


def test_a_reference_is_built_promoted_and_rolled_back(config: Path, tmp_path: Path, run_cli: Any) -> None:
    assert run_cli("topics", "create", "--with-inputs", "1").returncode == 0
    ids = []
    for seed in (1, 2):
        write_training_file(tmp_path / "a.parquet", Simulation(seed, 200.0, START_MS), 60_000)
        looked = run_cli("reference", "build", "--dry-run", "-o", "json")
        built = run_cli("reference", "build", MODEL, "-o", "json")
        assert built.returncode == 0, built.stderr
        (described,) = json.loads(built.stdout)
        assert described["stored"]
        assert described["rows"] == 60_000
        assert json.loads(looked.stdout)[0]["reference"] == described["reference"]
        ids.append(described["reference"])
    assert ids[0] != ids[1]

    def states() -> dict[str, str]:
        listed = run_cli("reference", "list", "-o", "json")
        assert listed.returncode == 0, listed.stderr
        return {entry["reference"]: entry["state"] for entry in json.loads(listed.stdout)}

    assert states() == {ids[0]: "stored", ids[1]: "stored"}
    for reference in ids:
        assert run_cli("reference", "promote", MODEL, reference[:19]).returncode == 0
    assert states() == {ids[0]: "before", ids[1]: "active"}
    back = run_cli("reference", "rollback", MODEL)
    assert back.returncode == 0, back.stderr
    assert f"{MODEL}: {ids[0]} is active (revision 3)" in back.stdout
    assert states()[ids[0]] == "active"
    assert ids[0][:19] in run_cli("reference", "list").stdout

    nothing = run_cli("reference", "rollback", MODEL)
    assert nothing.returncode == 1
    assert "no reference was active before" in nothing.stderr
    unknown = run_cli("reference", "promote", MODEL, "sha256:00")
    assert unknown.returncode == 1
    assert "0 stored references begin with sha256:00" in unknown.stderr
    other = run_cli("reference", "build", "fruad")
    assert other.returncode == 2
    assert "did you mean `fraud`?" in other.stderr
