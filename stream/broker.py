"""The development broker: Apache Kafka itself, one node, on loopback, for the demo, the tests and the load tests.

    with Broker() as broker:
        broker.bootstrap_servers        # "127.0.0.1:23817"

Lives no longer than the process that started it, whatever ends that one (broker_guard.py). KAFKA_BOOTSTRAP_SERVERS names
another broker, which `any_broker` then uses instead. Not for production: one node, no replication, everything is lost
with the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, Self

from stream.broker_files import BrokerUnavailableError, cache_folder, find_java, kafka_jars, kafka_version, writable
from stream.broker_guard import Guarded

Tuning = Literal["light", "load"]
LOOPBACK = "127.0.0.1"
START_S = 90.0  # after kill -9 a broker reads its logs again: 13 s with a hundred partitions on a quiet machine
PORTS = range(
    20_000, 32_000
)  # below the kernel's own outgoing ports, so that a broker that restarts finds its port free
PORT_TRIES = 200
CLUSTER_ID = "ZHJpZnRsaW5lLWRldmVsbw"  # 16 bytes of base64; every development broker may share one
LOG_LINES_SHOWN = 15
REPLICATED = (  # with the defaults of 3 and 2 a single node would never make its own topics
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
)
JVM: Mapping[Tuning, tuple[str, ...]] = {
    "light": ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    "load": ("-Xmx512m",),
}


class Broker:
    """One Apache Kafka node with its data in `data` (kept) or in a temporary folder (removed by `close`).

    properties   more lines of server.properties, or other values for those set here
    listeners    security protocols to listen on besides PLAINTEXT; `addresses` has one address each
    Raises BrokerUnavailableError: nothing to run it with, port taken, or it did not answer (with the end of its log).
    First start about 10 s (fetches 44 MB), then 2-3 s; 330 MB of memory.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        port: int | None = None,
        tuning: Tuning = "light",
        properties: Mapping[str, str] | None = None,
        listeners: Sequence[str] = (),
    ) -> None:
        self._kept = data
        self._tuning: Tuning = tuning
        self._properties = dict(properties or {})
        self._listeners = tuple(listeners)
        self._port_wanted = port
        self._folder: Path | None = None
        self._ports: dict[str, int] = {}
        self._process: Guarded | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def addresses(self) -> Mapping[str, str]:
        """host:port of each listener by its name, PLAINTEXT among them."""
        return {name: f"{LOOPBACK}:{port}" for name, port in self._ports.items() if name != "CONTROLLER"}

    @property
    def bootstrap_servers(self) -> str:
        return self.addresses["PLAINTEXT"]

    @property
    def folder(self) -> Path:
        """Where its files are. A temporary one goes with the broker, also when this process is killed."""
        if self._folder is None:
            raise BrokerUnavailableError("this broker has not been started")
        return self._folder

    @property
    def log_file(self) -> Path:
        return self.folder / "broker.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.running else None

    @property
    def guard_pid(self) -> int | None:
        return self._process.guard_pid if self._process is not None and self._process.running else None

    def start(self) -> None:
        """Starts it, or starts it again on the same data and ports; returns when it answers. No-op while it runs."""
        if self.running:
            return
        java, jars = find_java(), kafka_jars()
        if not self._ports:
            self._choose_ports()
        if self._folder is None:
            self._prepare_folder()
        folder = self.folder
        settings = folder / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in self._server_properties(folder).items()))
        command = [str(java), *JVM[self._tuning], "-Djava.net.preferIPv4Stack=true", "-Dlog4j2.level=WARN"]
        command += [f"-Djava.io.tmpdir={folder / 'tmp'}", "-cp", os.pathsep.join(map(str, jars))]
        if not (folder / "data" / "meta.properties").exists():
            try:
                _format(command, settings, folder)
            except BrokerUnavailableError:
                self.close()
                raise
        scratch = folder if self._kept is None else None
        self._process = Guarded([*command, "kafka.Kafka", str(settings)], folder / "broker.log", scratch)
        self._await_answer()

    def stop(self) -> None:
        """Ends it in order (SIGTERM); the data stay for `start`."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """Ends it as a crash would (SIGKILL); the data stay for `start`."""
        self.send_signal(signal.SIGKILL)
        self.stop()

    def send_signal(self, number: int) -> None:
        """To the broker's own process: SIGSTOP and SIGCONT freeze and revive it."""
        if self._process is not None:
            self._process.send_signal(number)

    def close(self) -> None:
        """Ends it and removes its temporary folder."""
        self.stop()
        if self._folder is not None:
            if self._lock is not None:
                self._lock.close()
            if self._kept is None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _prepare_folder(self) -> None:
        if self._kept is None:
            self._folder = Path(tempfile.mkdtemp(prefix="driftline-broker-"))
        else:
            self._folder = self._kept.resolve()
        with writable(self._folder / "tmp"):
            self._lock = (self._folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            self._folder = None
            raise BrokerUnavailableError(f"another broker runs on {self._kept}; --data names another folder") from error

    def _choose_ports(self) -> None:
        names = ("PLAINTEXT", *self._listeners, "CONTROLLER")
        if self._port_wanted is not None and not _is_free(self._port_wanted):
            raise BrokerUnavailableError(f"port {self._port_wanted} of {LOOPBACK} is taken; --port names another")
        free = _free_ports(len(names), avoid=self._port_wanted)
        if self._port_wanted is not None:
            free[0] = self._port_wanted
        self._ports = dict(zip(names, free, strict=True))

    def _server_properties(self, folder: Path) -> dict[str, str]:
        address = {name: f"{LOOPBACK}:{port}" for name, port in self._ports.items()}
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{address['CONTROLLER']}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name}://{place}" for name, place in address.items()),
            "advertised.listeners": ",".join(f"{name}://{place}" for name, place in self.addresses.items()),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{name}" for name in self.addresses),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(folder / "data"),
            **dict.fromkeys(REPLICATED, "1"),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": "4000",  # a killed broker may register again only after this
            "broker.heartbeat.interval.ms": "1000",
            "log.cleaner.dedupe.buffer.size": "16777216",  # the default of 128 MB would be half the heap
        }
        return settings | self._properties

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_S
        while self.running and time.monotonic() < deadline:
            if _answers(self._ports["PLAINTEXT"]):
                return
            time.sleep(0.05)
        came_to = "ended" if not self.running else f"did not answer within {START_S:.0f} s"
        tail = self.log_tail()
        self.close()
        raise BrokerUnavailableError(f"Apache Kafka {kafka_version()} {came_to}; the end of its log:\n{tail}")

    def log_tail(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            lines = self.log_file.read_text(errors="replace").splitlines()
            telling = [line for line in lines if not line.startswith("\t")]  # without the stack frames
            return "\n".join(telling[-LOG_LINES_SHOWN:])
        return "(no log)"


@contextlib.contextmanager
def any_broker(tuning: Tuning = "light", properties: Mapping[str, str] | None = None) -> Iterator[str]:
    """Bootstrap servers of the broker that KAFKA_BOOTSTRAP_SERVERS names, else of one that lives as long as the block."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    if named:
        yield named
    else:
        with Broker(tuning=tuning, properties=properties) as broker:
            yield broker.bootstrap_servers


def run_broker(port: int | None = 9092, data: Path | None = None) -> int:
    """Body of `driftline broker`: runs until SIGINT or SIGTERM. Returns 0; 1 = it ended by itself; 3 = not to be had."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Broker(data, port=port) as broker:
            kept = f"in {data}" if data else "in a temporary folder: gone when this ends"
            print(
                f"Apache Kafka {kafka_version()} for development on {broker.bootstrap_servers}, data {kept}", flush=True
            )
            print(f"log: {broker.log_file}   end it with Ctrl-C", flush=True)
            while broker.running:
                if ended.wait(0.5):
                    return 0
            print("the broker ended by itself; the end of its log:", broker.log_tail(), sep="\n", file=sys.stderr)
            return 1
    except BrokerUnavailableError as error:
        print(error, file=sys.stderr)
        return 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _format(command: Sequence[str], settings: Path, folder: Path) -> None:
    """Copies a formatted data folder; the first time ever, has Kafka's own tool make it (1.3 s)."""
    template = cache_folder() / f"kafka-{kafka_version()}" / f"formatted-{CLUSTER_ID}"
    if not template.exists():
        tool = [*command, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(settings)]
        made = subprocess.run(tool, capture_output=True, text=True, check=False)  # noqa: S603
        if made.returncode != 0:
            raise BrokerUnavailableError(f"Apache Kafka refused its settings:\n{made.stdout}{made.stderr}".strip())
        with writable(template.parent), tempfile.TemporaryDirectory(dir=template.parent, prefix=".format-") as scratch:
            copied = shutil.copytree(folder / "data", Path(scratch) / "data")
            with contextlib.suppress(OSError):  # another process was quicker: its copy is the same
                copied.rename(template)
        return
    shutil.copytree(template, folder / "data", dirs_exist_ok=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_ports(count: int, avoid: int | None) -> list[int]:
    chance = random.SystemRandom()
    tried = (chance.choice(PORTS) for _ in range(PORT_TRIES))
    free: list[int] = []
    for port in tried:
        if port != avoid and port not in free and _is_free(port):
            free.append(port)
        if len(free) == count:
            return free
    raise BrokerUnavailableError(f"found no {count} free ports between {PORTS.start} and {PORTS.stop} on {LOOPBACK}")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    return _free_ports(1, avoid=None)[0]


def _answers(port: int) -> bool:
    """Whether Kafka is there: an ApiVersions request (key 18, version 0) that gets its correlation id back."""
    correlation = 7
    request = struct.pack(">hhih", 18, 0, correlation, -1)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = b""
            while len(head) < 8:
                part = connection.recv(8 - len(head))
                if not part:
                    return False
                head += part
    except OSError:
        return False
    return bool(struct.unpack(">ii", head)[1] == correlation)
