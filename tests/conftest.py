"""What every test may ask for: the real broker, names of its own, a command-line process that cannot outlive the test."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from stream.broker import any_broker

# The same examples in every run, so that a commit that was green stays green; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

CLI_WAIT_S = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Kafka:
    """The broker of this session."""

    bootstrap_servers: str

    def create_topic(self, name: str, partitions: int = 1, settings: dict[str, str] | None = None) -> str:
        from kafka.admin import KafkaAdminClient

        wanted = {name: {"num_partitions": partitions, "replication_factor": 1, "configs": settings or {}}}
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)) as admin:
            admin.create_topics(wanted, wait_for_metadata=True)
        return name


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """Apache Kafka, one per session. Where it cannot be had, the tests that ask for it fail; they never skip."""
    properties = {
        "message.max.bytes": "4194304",
        "log.cleaner.backoff.ms": "1000",
    }  # 15 s are waited for by tests of compaction
    with any_broker(properties=properties) as bootstrap_servers:
        yield Kafka(bootstrap_servers)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A topic prefix that no other test has, also on a broker that outlives the session."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name)[:60].strip("-").lower()
    return f"{name}-{os.getpid()}-{next(_numbers)}."


RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
StartCli = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """run_cli("check-config", "monitor.yaml", cwd=…) -> CompletedProcess with text; never raises on the exit code."""

    def run(
        *arguments: str, cwd: Path = tmp_path, wait_s: float = CLI_WAIT_S, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stream.cli", *arguments]
        environment = os.environ | (env or {})
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=wait_s, check=False
        )

    return run


@pytest.fixture
def start_cli(tmp_path: Path) -> Iterator[StartCli]:
    """start_cli("run", "--config", …) -> Popen in a process group of its own, output (both) in `.log`; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, cwd: Path = tmp_path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        log = tmp_path / f"process-{len(started)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", *arguments],
                cwd=cwd,
                env=os.environ | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        process.log = log  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
