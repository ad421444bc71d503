"""What the tests of faults share: whole workers with environments of their own, their metrics, waiting with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.metrics import METRICS

_path = Path(__file__).parents[1] / "integration" / "worker_bench.py"
_spec = spec_from_file_location("worker_bench", _path)
bench_module: Any = sys.modules.setdefault("worker_bench", module_from_spec(_spec))
if not hasattr(bench_module, "Bench"):
    _spec.loader.exec_module(bench_module)
until = bench_module.until
POLL_S = 0.2
T = TypeVar("T")
METRIC_NAMES = {metric.name for metric in METRICS}


class FaultBench(bench_module.Bench):
    """A Bench whose workers have an environment and a metrics port of their own."""

    quiet = ""

    @contextlib.contextmanager
    def worker(
        self, port: int = 0, *arguments: str, under: tuple[str, ...] = (), **environment: str
    ) -> Iterator[Worker]:
        """One worker; `under`: a command that runs it (prlimit, ...)."""
        config = self.folder / f"worker-{port}.yaml"
        config.write_text(self.config_path.read_text() + f"metrics: {{port: {port}}}\n")
        settings = [f"{name}={value}" for name, value in environment.items()]
        command = self.command(*arguments)
        command[command.index(str(self.config_path))] = str(config)
        with self.running(command=["env", *settings, *under, *command]) as process:
            yield Worker(process, port)

    def drain(self, seconds: float = 150) -> None:
        """As the Bench's, on no port."""
        with self.worker(0, "--drain") as worker:
            code = worker.wait(seconds)
            assert code == 0, worker.log()[-4000:]

    def committed(self) -> dict[int, int]:
        """The group's committed offset of every predictions partition."""
        return asyncio.run(self._asked(self._committed_now))

    def ends(self) -> dict[int, int]:
        return asyncio.run(self._asked(self._ends_now))

    def settle(self, *workers: Worker, seconds: float = 60.0) -> float:
        """Wait until everything produced so far is committed; seconds that it took. Fails at once when a worker has ended."""
        return asyncio.run(self._asked(lambda consumer: self._settled(consumer, workers, seconds)))

    async def _settled(self, consumer: AIOKafkaConsumer, workers: tuple[Worker, ...], seconds: float) -> float:
        started, ends = time.monotonic(), await self._ends_now(consumer)
        while (now := await self._committed_now(consumer)) != ends:
            waited = time.monotonic() - started
            logs = [worker.log()[-2500:] for worker in workers]
            assert waited < seconds, (now, ends, *logs)
            assert not workers or any(worker.process.poll() is None for worker in workers), logs
            await asyncio.sleep(POLL_S)
        return time.monotonic() - started

    async def _asked(self, question: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers, group_id=f"{self.prefix}workers", enable_auto_commit=False
        )
        await consumer.start()
        try:
            return await question(consumer)
        finally:
            await consumer.stop()

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, partition) for partition in range(self.partitions)]

    async def _committed_now(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        return {place.partition: await consumer.committed(place) or 0 for place in self._places()}

    async def _ends_now(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        return {place.partition: end for place, end in (await consumer.end_offsets(self._places())).items()}

    def shifted(self, n: int, by: float) -> list[tuple[int, bytes | None]]:
        """Events whose amounts are `by` larger: drift."""
        records = []
        for partition, value in self.events(n):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                body = json.loads(value or b"")
                body["features"]["amount"] += by
                value = json.dumps(body).encode()  # noqa: PLW2901
            records.append((partition, value))
        return records

    def alerts(self) -> dict[str, list[bytes]]:
        """Bodies of every alert event by id, each as often as it was written."""
        found: dict[str, list[bytes]] = {}
        for record in self.read(f"{self.prefix}alerts"):
            found.setdefault(json.loads(record.value)["id"], []).append(record.value)
        return found


class Worker:
    """A running worker, asked from outside."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def log(self) -> str:
        return self.process.log.read_text()  # type: ignore[attr-defined]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; (0, "") if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, name: str, **labels: object) -> float:
        """Sum of the metric's series that have these labels; a name that no worker has must not look like a zero."""
        assert f"driftline_{name}" in METRIC_NAMES, name
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.get("/metrics")[1].splitlines()
        found = [line for line in lines if line.startswith((f"driftline_{name}{{", f"driftline_{name} "))]
        return sum(float(line.split()[-1]) for line in found if all(part in line for part in wanted))

    def until_ready(self, seconds: float = 150.0) -> Worker:
        until(lambda: self.get("/ready")[0] == 200, seconds, why=lambda: self.log()[-3000:])
        return self

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)
