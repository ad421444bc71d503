"""docker-compose.yml and the Dockerfile, as far as they can be checked where no Docker engine runs.

Checked: the file against the Compose Specification's own JSON Schema (tests/data/compose_spec.json, from docker-compose
1.29.2, Apache-2.0), every reference inside it, that nothing is published beyond loopback, that our containers are neither
root nor can write their root, that what the Dockerfile copies exists, that the commands are commands and the mounted
configuration loads. Not checked: that the images build and run.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from stream.broker_files import kafka_version
from stream.config_loader import load

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / ".docker" / "Dockerfile").read_text()
OURS = ("topics", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "docker-compose.yml")  # type: ignore[no-any-return]


def schema_errors(document: dict[str, Any]) -> list[str]:
    schema = json.loads((ROOT / "tests" / "data" / "compose_spec.json").read_text())
    return [error.message for error in jsonschema.Draft201909Validator(schema).iter_errors(document)]


def test_it_satisfies_the_compose_specification(compose: dict[str, Any]) -> None:
    # younger than this copy of the schema, and known to Compose since 2.0
    assert schema_errors({key: value for key, value in compose.items() if key != "name"}) == []


def test_the_schema_refuses_what_compose_would(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"] | {"dependson": ["kafka"]}
    assert schema_errors({"services": {"worker": worker}})
    worker = compose["services"]["worker"] | {"read_only": "yes"}
    assert schema_errors({"services": {"worker": worker}})


def test_references_inside_it_resolve(compose: dict[str, Any]) -> None:
    services = compose["services"]
    used = set()
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert (how["condition"] == "service_healthy") == ("healthcheck" in services[other])
        sources = [re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text).split(":")[0] for text in service.get("volumes", [])]
        used |= {source for source in sources if not source.startswith(".")}
        assert all((ROOT / source).exists() for source in sources if source.startswith("."))
    assert used == set(compose["volumes"])
    assert services["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


def test_nothing_is_published_beyond_loopback(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_containers_have_no_rights_they_do_not_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["user"] not in {"", "0", "root", "0:0"}
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        if name in OURS:
            assert service["read_only"] is True
            assert service["user"] == "10001:10001"
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_what_the_dockerfile_copies_exists_and_reaches_the_build() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    lines = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line]
    assert len(lines) > 2
    for source in [source for line in lines for source in line]:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed)


def test_commands_and_configuration(compose: dict[str, Any]) -> None:
    import typer.main

    from stream.cli import app

    command = typer.main.get_command(app)
    cmd = re.search(r"^CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert cmd is not None
    for words in [json.loads(cmd[1]), *(compose["services"][name]["command"] for name in OURS)]:
        current: Any = command
        rest = list(words)
        while rest and hasattr(current, "commands"):
            current = current.commands[rest.pop(0)]
        known = {option for parameter in current.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, shlex.join(words)
    loaded = load(ROOT / ".docker" / "config" / "monitor.yaml")
    assert not loaded.warnings
    listeners = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{loaded.config.kafka.bootstrap_servers[0]}" in listeners.split(",")
