"""S9: every process on a secured Apache Kafka with its authorizer on, under exactly the documented rights; each refusal is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from fault_bench import FaultBench, bench_module, until
from secured_cluster import CANARY, EXPIRED, REAUTHENTICATE_MS, SecuredCluster, token

from stream.admin import AdminError
from stream.cli import app
from stream.config_loader import load
from stream.connection import aiokafka_settings
from stream.references import active_references
from stream.rights import Operation, Right, Use, rights
from stream.rights_check import require_rights
from stream.topics import TopicRole

TOKENS = """
from pathlib import Path

def good():
    with Path(__file__).with_name("calls").open("a") as calls:
        calls.write(".")
    return Path(__file__).with_name("token").read_text()

def expired():
    return Path(__file__).with_name("expired-token").read_text()

def away():
    raise ConnectionError("the identity provider is away")
"""
COMMANDS = (["check-config", "--connect"], ["run", "--drain"], ["topics", "list"], ["reference", "list"], ["dlq", "ls"])
ALL_USES = tuple(Use)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    it = SecuredCluster(tmp_path_factory.mktemp("certificates"))
    with it.broker:
        it.add_user("driftline")
        yield it


@pytest.fixture(autouse=True)
def secrets(cluster: SecuredCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password and the tokens' functions, for processes that are started here and for commands in this one."""
    monkeypatch.setenv("KAFKA_SECRET", CANARY)
    monkeypatch.setenv("KAFKA_WRONG", f"{CANARY}-wrong")
    monkeypatch.setenv("PYTHONPATH", str(cluster.folder))
    monkeypatch.syspath_prepend(str(cluster.folder))
    (cluster.folder / "secured_tokens.py").write_text(TOKENS)
    (cluster.folder / "token").write_text(token("driftline"))
    (cluster.folder / "expired-token").write_text(token("driftline", -120))


def secure(bench: FaultBench, cluster: SecuredCluster, listener: str, security: dict[str, str]) -> None:
    """The bench's configuration over a secured listener; its own looks at the topics stay on the plain one."""
    kafka = {"bootstrap_servers": cluster.broker.addresses[listener], "security": security}
    _, _, rest = bench.config_path.read_text().partition("\n")
    bench.config_path.write_text(f"kafka: {json.dumps(kafka)}\n{rest}")


def command(bench: FaultBench, *arguments: str) -> tuple[int, str]:
    """Exit code and everything that was printed; nothing may print a secret or a stack."""
    result = CliRunner().invoke(app, [*arguments, "--config", str(bench.config_path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert CANARY not in result.output
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def clean_logs(bench: FaultBench) -> str:
    logs = "".join(log.read_text() for log in bench.folder.glob("worker-*.log"))
    assert CANARY not in logs
    assert "Traceback" not in logs
    return logs


# -- every mechanism, every process, exactly the documented rights


def mechanisms(cluster: SecuredCluster, name: str) -> tuple[str, dict[str, str]]:
    """Listener and section `security`."""
    if name == "mTLS":
        return "SSL", cluster.ssl(**cluster.client_certificate("driftline"))
    if name == "OAUTHBEARER-function":
        return "OAUTH", cluster.oauth(token="secured_tokens:good")
    if name == "OAUTHBEARER-file":
        return "OAUTH", cluster.oauth(token_file=str(cluster.folder / "token"))
    return "SASL_SSL", cluster.sasl(name)


@pytest.mark.parametrize(
    "name", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER-function", "OAUTHBEARER-file", "mTLS"]
)
def test_every_process(cluster: SecuredCluster, name: str, tmp_path: Path) -> None:
    bench = FaultBench(cluster.broker.bootstrap_servers, f"s9-{name.lower()}.", tmp_path, partitions=2)
    for use in (Use.RUN, Use.TOPICS_LIST, Use.REFERENCE_WRITE, Use.DLQ_RETRY):
        cluster.grant("driftline", list(rights(bench.config, use)))
    secure(bench, cluster, *mechanisms(cluster, name))
    bench.produce(bench.events(1_000))
    if name == "SCRAM-SHA-512":  # the supervisor and its preparation too
        arguments = ["run", "--drain", "--config", str(bench.config_path)]
        done = subprocess.run(
            [sys.executable, "-m", "stream.cli", *arguments], capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert CANARY not in done.stderr
    else:
        bench.drain()
    bench_module.assert_equal_to_recount(bench)
    for arguments in (["check-config", "--connect"], ["topics", "list"], ["reference", "list"], ["reference", "build"]):
        code, text = command(bench, *arguments)
        assert code == 0, text
    (active,) = active_references(load(bench.config_path).config).values()
    assert command(bench, "reference", "promote", "m", active.reference or "")[0] == 0
    assert "missing_field" in command(bench, "dlq", "ls")[1]
    code, text = command(bench, "dlq", "retry", "--all")
    assert code == 0
    assert "10 retried" in text
    replayed = tmp_path / "events.jsonl"
    replayed.write_bytes(b"\n".join(value for _, value in bench.events(200) if value) + b"\n")
    assert CliRunner().invoke(app, ["replay", str(replayed), "--config", str(bench.config_path)]).exit_code == 0
    clean_logs(bench)


def test_tokens_are_asked_for_again_when_the_broker_ends_old_connections(cluster: SecuredCluster, tmp_path) -> None:
    bench = FaultBench(cluster.broker.bootstrap_servers, "s9-expiry.", tmp_path, partitions=2)
    cluster.grant("driftline", list(rights(bench.config, Use.RUN)))
    secure(bench, cluster, *mechanisms(cluster, "OAUTHBEARER-function"))
    bench.produce(bench.events(400))
    calls = cluster.folder / "calls"
    with bench.worker() as worker:
        bench.settle(worker)
        before = calls.stat().st_size
        time.sleep(1.5 * REAUTHENTICATE_MS / 1000)
        bench.produce(bench.events(400))
        bench.settle(worker)
        assert calls.stat().st_size > before
        assert worker.process.poll() is None
    clean_logs(bench)


# -- rights


def user_of(use: Use) -> str:
    return f"user-{use.value.replace(' ', '-')}"


@pytest.fixture(scope="module")
def righted(cluster: SecuredCluster, tmp_path_factory: pytest.TempPathFactory) -> FaultBench:
    """A drained topic, and one user for each use with its rights and no others."""
    alerting = "job_alerts: {min_events: 400, every: 2s, dead_letter_share: 0.001}\n"
    folder = tmp_path_factory.mktemp("rights")
    bench = FaultBench(cluster.broker.bootstrap_servers, "s9-rights.", folder, partitions=2, settings=alerting)
    for use in ALL_USES:
        cluster.add_user(user_of(use))
        cluster.grant(user_of(use), list(rights(bench.config, use)))
    group = Right(Use.ALERTS, "group", "pager", (Operation.READ,))
    cluster.grant(user_of(Use.ALERTS), [group])
    return bench


def under(bench: FaultBench, cluster: SecuredCluster, use: Use) -> None:
    secure(bench, cluster, "SASL_SSL", cluster.sasl("SCRAM-SHA-512", user_of(use)))


@pytest.fixture(scope="module")
def drained(righted: FaultBench, cluster: SecuredCluster) -> FaultBench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAFKA_SECRET", CANARY)
        under(righted, cluster, Use.RUN)
        righted.produce(righted.events(4_000))
        righted.drain()
    return righted


def test_each_command_works_under_its_rights_alone(drained: FaultBench, cluster: SecuredCluster) -> None:
    bench_module.assert_equal_to_recount(drained)
    assert drained.alerts()
    clean_logs(drained)
    worked = {
        Use.TOPICS_LIST: [["topics", "list"], ["check-config", "--connect"]],
        Use.REFERENCE_LIST: [["reference", "list"]],
        Use.REFERENCE_WRITE: [["reference", "build"]],
        Use.DLQ_READ: [["dlq", "ls"], ["dlq", "show", "0/0"]],
        Use.DLQ_RETRY: [["dlq", "retry", "--all"]],
    }
    for use, commands in worked.items():
        under(drained, cluster, use)
        for arguments in commands:
            code, text = command(drained, *arguments)
            assert code == 0, (use, arguments, text)


def test_topics_are_made_under_its_rights_alone(righted: FaultBench, cluster: SecuredCluster) -> None:
    under(righted, cluster, Use.TOPICS_CREATE)
    text = righted.config_path.read_text().replace("prefix: s9-rights.", "prefix: s9-made.")
    other = righted.folder / "made.yaml"
    other.write_text(text)
    wanted = list(rights(load(other).config, Use.TOPICS_CREATE))
    lacking = next(right for right in wanted if right.name == "s9-made.journal")
    cluster.grant(user_of(Use.TOPICS_CREATE), [right for right in wanted if right is not lacking])
    cluster.grant(user_of(Use.TOPICS_CREATE), [replace(lacking, operations=(Operation.DESCRIBE,))])
    create = ["topics", "create", "--config", str(other)]
    refused = CliRunner().invoke(app, create)
    assert refused.exit_code == 1
    assert "s9-made.journal: no right to Create it" in refused.output
    cluster.grant(user_of(Use.TOPICS_CREATE), [lacking])
    until(lambda: CliRunner().invoke(app, create).exit_code == 0, 20.0)
    assert CANARY not in refused.output


async def test_alerts_are_read_under_their_rights_alone(drained: FaultBench, cluster: SecuredCluster) -> None:
    under(drained, cluster, Use.ALERTS)
    kafka = load(drained.config_path).config.kafka
    consumer = AIOKafkaConsumer(
        "s9-rights.alerts", group_id="pager", auto_offset_reset="earliest", **aiokafka_settings(kafka)
    )
    await consumer.start()
    try:
        assert (await asyncio.wait_for(consumer.getone(), 30)).value
        await consumer.commit()
    finally:
        await consumer.stop()


SAMPLE = [
    pytest.param(Use.RUN, ["run", "--drain"], role, operation, id=f"S9-denied-{role}-{operation}")
    for role, operation in (
        (TopicRole.PREDICTIONS, Operation.READ),
        (TopicRole.ALERTS, Operation.WRITE),
        ("workers", Operation.READ),
        (TopicRole.STATE_COLLECTOR, Operation.READ),
        (TopicRole.CONTROL, Operation.DESCRIBE_CONFIGS),
    )
] + [
    pytest.param(Use.TOPICS_LIST, ["topics", "list"], TopicRole.STATE_MONITOR, Operation.DESCRIBE, id="S9-denied-list"),
    pytest.param(Use.DLQ_RETRY, ["dlq", "retry", "--all"], TopicRole.PREDICTIONS, Operation.WRITE, id="S9-denied-dlq"),
]


@contextlib.contextmanager
def without(cluster: SecuredCluster, right: Right, operation: Operation) -> Iterator[None]:
    cluster.withdraw(user_of(right.use), right.resource, right.name, operation)
    try:
        yield
    finally:
        cluster.grant(user_of(right.use), [replace(right, operations=(operation,))])


@pytest.mark.parametrize(("use", "arguments", "role", "operation"), SAMPLE)
def test_a_missing_right_is_named(
    righted: FaultBench, cluster: SecuredCluster, use: Use, arguments: list[str], role: Any, operation: Operation
) -> None:
    under(righted, cluster, use)
    name = "s9-rights.workers" if role == "workers" else righted.config.topic(role)
    right = next(right for right in rights(righted.config, use) if right.name == name)
    with without(cluster, right, operation):
        until(lambda: _denied(righted, use), 20.0)
        code, text = command(righted, *arguments)
    assert code == 1
    (line,) = [line for line in text.splitlines() if name in line]
    assert line.startswith(f"  {right.resource} {name}: ")
    assert operation.value in line.partition(": ")[2].split(", ")
    assert f"user {user_of(use)}" in text
    until(lambda: not _denied(righted, use), 20.0)


def _denied(bench: FaultBench, use: Use) -> bool:
    try:
        require_rights(load(bench.config_path).config, use)
    except AdminError:
        return True
    return False


# -- refusals


def refusals(cluster: SecuredCluster) -> dict[str, tuple[str, dict[str, str], int, str]]:
    """By row: listener, section `security`, exit code, what the message says."""
    c = cluster
    mine = c.client_certificate("mine")
    wrong = {"password": "${KAFKA_WRONG}"}
    return {
        "wrong-password-scram": ("SASL_SSL", c.sasl("SCRAM-SHA-512", **wrong), 1, "user driftline was refused (SCRAM"),
        "wrong-password-plain": ("SASL_SSL", c.sasl("PLAIN", **wrong), 1, "user driftline was refused (PLAIN)"),
        "unknown-user": ("SASL_SSL", c.sasl("SCRAM-SHA-256", "nobody"), 1, "user nobody was refused (SCRAM-SHA-256)"),
        "unknown-ca": ("SASL_SSL", c.sasl("PLAIN", ca_file=str(c.other_ca_file)), 1, "its certificate is not trusted"),
        "wrong-host-name": ("OTHERNAME", c.ssl(), 1, "another host name than 127.0.0.1"),
        "expired-server-certificate": ("EXPIRED", c.ssl(), 1, "its certificate has expired"),
        "expired-client-certificate": (
            "SSL", c.ssl(**c.client_certificate("expired", **EXPIRED)), 1, "the client certificate has expired at 20",
        ),
        "foreign-client-certificate": (
            "SSL", c.ssl(**c.client_certificate("foreign", authority=c.other_authority)), 1,
            "it does not accept the client certificate",
        ),
        "client-certificate-missing": ("SSL", c.ssl(), 1, "it wants a client certificate"),
        "wrong-key-password": ("SSL", c.ssl(**(mine | {"key_password": "${KAFKA_WRONG}"})), 1, "cannot be used"),
        "plaintext-on-tls": ("SSL", {"protocol": "PLAINTEXT"}, 1, "it speaks TLS"),
        "tls-on-plaintext": ("PLAINTEXT", c.ssl(), 1, "it speaks no TLS"),
        "login-not-wanted": ("SSL", c.sasl("PLAIN", **mine), 1, "no login is wanted there"),
        "login-wanted": ("SASL_SSL", c.ssl(), 1, "it wants a login"),
        "wrong-mechanism": (
            "OAUTH", c.sasl("SCRAM-SHA-512"), 1, "SCRAM-SHA-512 is not offered there, but OAUTHBEARER",
        ),
        "denied-topic": ("SASL_SSL", c.sasl("PLAIN"), 1, "topic s9-refused."),
        "token-expired": ("OAUTH", c.oauth(token="secured_tokens:expired"), 1, "it has expired at 20"),
        "token-function-raises": (
            "OAUTH", c.oauth(token="secured_tokens:away"), 3, "raised ConnectionError: the identity provider is away",
        ),
        "token-function-absent": ("OAUTH", c.oauth(token="secured_tokens:nothing"), 1, "cannot be imported"),
        "token-file-absent": ("OAUTH", c.oauth(token_file="/nonexistent/token"), 3, "No such file"),
    }  # fmt: skip


ROWS = (
    "wrong-password-scram", "wrong-password-plain", "unknown-user", "unknown-ca", "wrong-host-name",
    "expired-server-certificate", "expired-client-certificate", "foreign-client-certificate", "client-certificate-missing",
    "wrong-key-password", "plaintext-on-tls", "tls-on-plaintext", "login-not-wanted", "login-wanted", "wrong-mechanism",
    "denied-topic", "token-expired", "token-function-raises", "token-function-absent", "token-file-absent",
)  # fmt: skip


@pytest.fixture(scope="module")
def refused_bench(cluster: SecuredCluster, tmp_path_factory: pytest.TempPathFactory) -> FaultBench:
    return FaultBench(cluster.broker.bootstrap_servers, "s9-refused.", tmp_path_factory.mktemp("refused"), partitions=2)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"S9-{row}") for row in ROWS])
def test_each_refusal_names_its_cause(
    cluster: SecuredCluster, refused_bench: FaultBench, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = refused_bench
    listener, security, code, said = refusals(cluster)[row]
    secure(bench, cluster, listener, security)
    if code == 3:  # a worker that may get in later is not waited for here
        monkeypatch.setattr("stream.supervisor.run_supervisor", lambda *_: 3)
    for arguments in COMMANDS:
        found, text = command(bench, *arguments)
        assert found == code, (arguments, text)
        assert said in text, (arguments, text)
        assert text.count(said) == 1 or row == "denied-topic"


@pytest.mark.parametrize("row", ["wrong-password-scram", "token-function-raises", "unknown-ca"])
def test_a_worker_says_it_once_and_ends(cluster: SecuredCluster, refused_bench: FaultBench, row: str) -> None:
    """The worker's own process, which the supervisor starts again on code 3 and never on code 1."""
    bench = refused_bench
    listener, security, code, said = refusals(cluster)[row]
    secure(bench, cluster, listener, security)
    with bench.running() as process:
        assert process.wait(60) == code
        log = process.log.read_text()
    assert log.count(said) == 1
    assert len(log.splitlines()) == 1
    clean_logs(bench)


def test_the_rows_are_all_there(cluster: SecuredCluster) -> None:
    assert set(ROWS) == set(refusals(cluster))
