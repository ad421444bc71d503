"""A broker that is slow, deaf or half-open (F14), and one that refuses what it should take (F15): a proxy of our own between.

One broker, one proxy, one worker; each row produces under its fault and waits until everything is counted; the last one
recounts all of it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from stream.broker import JVM, Broker, find_java, free_port, kafka_jars
from tests.faults.fault_bench import FaultBench, until
from tests.faults.proxy import OFFSET_COMMIT, PRODUCE, Lie, Proxy
from tests.integration.worker_bench import assert_equal_to_recount

pytestmark = pytest.mark.kafka
PATIENCE_S = 150.0  # with a busy machine, no promise
DEAF_S = 20.0
RSS_GROWTH_MB_MAX = 80.0
CONNECTIONS_MORE_MAX = 8
BYTES_PER_S = 20_000
QUOTA_BYTES_PER_S = 30_000
EVENTS = 1_000


class Story:
    """What the rows share."""

    def __init__(self, bench: FaultBench, worker: Any, proxy: Proxy, broker: Broker) -> None:
        self.bench, self.worker, self.proxy, self.broker = bench, worker, proxy, broker
        self.process = psutil.Process(worker.process.pid)

    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss / 1e6)

    def produce(self, n: int = EVENTS) -> None:
        self.bench.produce(self.bench.events(n), compressions=(None,))

    def settle(self) -> float:
        return float(self.bench.settle(self.worker, seconds=PATIENCE_S))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Proxy().running() as proxy:
        port = free_port()
        advertised = f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy.port}"
        protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT"
        properties = {"advertised.listeners": advertised, "listener.security.protocol.map": protocols}
        with Broker(port=port, listeners=("PROXIED",), properties=properties) as broker:
            proxy.broker_port = int(broker.addresses["PROXIED"].rpartition(":")[2])
            bench = FaultBench(f"127.0.0.1:{proxy.port}", "lies.", tmp_path_factory.mktemp("lies"), partitions=2)
            bench.servers = broker.bootstrap_servers  # the test itself goes past the proxy
            with bench.worker(free_port()) as worker:
                worker.until_ready()
                told = Story(bench, worker, proxy, broker)
                told.produce(2_000)
                told.settle()
                yield told


@pytest.fixture
def calm(story: Story) -> Iterator[Story]:
    """The story with nothing wrong before and after."""
    story.proxy.heal()
    assert story.worker.process.poll() is None
    yield story
    story.proxy.heal()


@pytest.mark.parametrize(
    ("delay_s", "bytes_per_s"),
    [
        pytest.param(1.0, float("inf"), id="F14-two-seconds-there-and-back"),
        pytest.param(0.0, BYTES_PER_S, id="F14-throttled-bytes"),
    ],
)
def test_a_slow_broker_costs_time_and_nothing_else(calm: Story, delay_s: float, bytes_per_s: float) -> None:
    """All is counted while the broker is slow, not only once it is quick again."""
    before = calm.rss_mb()
    calm.proxy.delay_s, calm.proxy.bytes_per_s = delay_s, bytes_per_s
    calm.produce()
    calm.settle()
    assert calm.worker.get("/live")[0] == 200
    assert calm.rss_mb() - before < RSS_GROWTH_MB_MAX


def test_a_broker_that_hangs_is_waited_for(calm: Story) -> None:
    """F14: connections stay open, no byte passes for two sessions; a backlog comes in meanwhile."""
    before, connections, log = calm.rss_mb(), calm.proxy.connections, len(calm.worker.log())
    calm.proxy.deaf = True
    began, probes = time.monotonic(), []
    calm.produce(20 * EVENTS)
    while time.monotonic() - began < DEAF_S:
        probes.append((calm.worker.get("/ready")[0], calm.worker.get("/live")[0]))
        time.sleep(0.5)
    lines = calm.worker.log()[log:].splitlines()
    calm.proxy.heal()
    calm.settle()
    until(lambda: calm.worker.get("/ready")[0] == 200, PATIENCE_S, why=calm.worker.log)
    assert all(live == 200 for _, live in probes)
    assert probes[-1][0] == 503
    assert len(lines) <= DEAF_S + 2, lines
    assert calm.rss_mb() - before < RSS_GROWTH_MB_MAX
    until(lambda: calm.proxy.connections <= connections + CONNECTIONS_MORE_MAX, PATIENCE_S)


def test_connections_that_died_silently_are_made_anew(calm: Story) -> None:
    """F14: half-open: what is sent on them is lost, nothing ever comes back, no side is told."""
    before = calm.rss_mb()
    assert calm.proxy.half_open() >= 3
    calm.produce()
    calm.settle()
    assert calm.rss_mb() - before < RSS_GROWTH_MB_MAX


LIES = [
    pytest.param(Lie(PRODUCE, "panes", 6, 3), "", id="F15-not-leader"),
    pytest.param(Lie(PRODUCE, "state.collector", 7, 3), "", id="F15-produce-timed-out"),
    pytest.param(Lie(PRODUCE, "dead-letters", 44, 3), "PolicyViolationError", id="F15-policy-violation"),
    pytest.param(Lie(PRODUCE, "panes", 29, 1), "TopicAuthorizationFailedError", id="F15-topic-not-authorized"),
    pytest.param(Lie(OFFSET_COMMIT, "", 14, 3), "", id="F15-coordinator-loads"),
    pytest.param(Lie(OFFSET_COMMIT, "", 16, 2), "", id="F15-not-coordinator"),
    pytest.param(Lie(OFFSET_COMMIT, "", 7, 2), "", id="F15-commit-timed-out"),
    pytest.param(Lie(OFFSET_COMMIT, "", 27, 1), "", id="F15-rebalance-in-progress"),
    pytest.param(Lie(OFFSET_COMMIT, "", 30, 16), "GroupAuthorizationFailedError", id="F15-group-not-authorized"),
]


@pytest.mark.parametrize(("lie", "named"), LIES)
def test_what_the_broker_refuses_for_now_is_tried_again_and_what_it_forbids_is_named(
    calm: Story, lie: Lie, named: str
) -> None:
    """The broker has done it and says no: the worker does it again, and nothing counts twice."""
    log, times = len(calm.worker.log()), lie.times
    calm.proxy.lies.append(lie)
    calm.produce()
    until(lambda: calm.proxy.told[lie.api, lie.code] == times, PATIENCE_S, why=calm.worker.log)
    calm.settle()
    assert named in calm.worker.log()[log:]  # warnings are one a second: what lasts is said
    calm.proxy.told.clear()


def quota(broker: Broker, change: str) -> None:
    """`change` the default client's rates with Kafka's own tool."""
    tool = [str(find_java()), *JVM["light"], "-cp", ":".join(map(str, kafka_jars())), "kafka.admin.ConfigCommand"]
    entity = ["--entity-type", "clients", "--entity-default", "--alter", *change.split()]
    command = [*tool, "--bootstrap-server", broker.bootstrap_servers, *entity]
    subprocess.run(command, check=True, timeout=120, capture_output=True)


def test_a_quota_of_the_broker_slows_and_loses_nothing(calm: Story) -> None:
    """F15: throttling, the broker's own."""
    calm.produce(4 * EVENTS)
    rates = f"producer_byte_rate={QUOTA_BYTES_PER_S},consumer_byte_rate={QUOTA_BYTES_PER_S}"
    quota(calm.broker, f"--add-config {rates}")
    try:
        calm.produce(2 * EVENTS)
        calm.settle()
    finally:
        quota(calm.broker, "--delete-config producer_byte_rate,consumer_byte_rate")


def test_f14_f15_everything_was_counted_once(calm: Story) -> None:
    calm.settle()
    calm.worker.send(signal.SIGTERM)
    assert calm.worker.wait(30) == 0, calm.worker.log()[-3000:]
    assert "Traceback" not in calm.worker.log()
    calm.bench.drain()
    assert_equal_to_recount(calm.bench)
