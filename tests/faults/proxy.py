"""A TCP proxy between workers and a broker that can be slow, deaf, half-open, or put other words into the broker's mouth.

    broker advertises the proxy's port; the proxy connects to the broker's own listener

Bytes pass frame by frame (4 bytes of length, then a request or response), so that an error code can be written into a
response of the one or other kind. Runs in a thread of its own; faults are switched from the test's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka.protocol import commit, produce
from aiokafka.protocol.api import Response

LOOPBACK = "127.0.0.1"
PRODUCE, OFFSET_COMMIT = 0, 8
RESPONSES: dict[tuple[int, int], Any] = {
    (kind.API_KEY, kind.API_VERSION): kind
    for module in (produce, commit)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Response) and kind is not Response
}
ERROR_AT = 1  # of a partition's tuple in both
SLICE_S = 0.05
BUFFER_BYTES = 64 << 10


@dataclass
class Lie:
    """Error `code` in the next `times` responses of the API that tell of a topic whose name ends so."""

    api: int
    topic_end: str
    code: int
    times: int


@dataclass
class Proxy:
    """`delay_s` and `bytes_per_s` hold for each direction of each connection; `deaf` stops all bytes, connections stay."""

    broker_port: int = 0
    delay_s: float = 0.0
    bytes_per_s: float = float("inf")
    deaf: bool = False
    lies: list[Lie] = field(default_factory=list)
    told: Counter[tuple[int, int]] = field(default_factory=Counter)  # (API, error code): responses rewritten
    port: int = 0
    connections: int = 0  # open ones

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._half_open: set[object] = set()
        self._links: dict[object, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        self._thread.start()
        server = self._do(asyncio.start_server(self._serve, LOOPBACK, 0, limit=BUFFER_BYTES))
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._do(self._end(server))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def heal(self) -> None:
        """From now on every byte passes; what is half-open stays so."""
        self.delay_s, self.bytes_per_s, self.deaf = 0.0, float("inf"), False
        self.lies.clear()

    def half_open(self) -> int:
        """The broker's side of every connection is closed, the client's side never hears of it; new ones work. How many."""

        async def cut() -> int:
            for link, (_, upstream) in self._links.items():
                self._half_open.add(link)
                upstream.close()
            return len(self._links)

        return int(self._do(cut()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link, asked = object(), dict[int, tuple[int, int]]()
        try:
            from_broker, to_broker = await asyncio.open_connection(LOOPBACK, self.broker_port, limit=BUFFER_BYTES)
        except OSError:
            writer.close()
            return
        self._links[link] = (writer, to_broker)
        self.connections += 1
        back = asyncio.ensure_future(self._pass(link, from_broker, writer, asked, requests=False))
        try:
            await self._pass(link, reader, to_broker, asked, requests=True)
        finally:
            back.cancel()
            self.connections -= 1
            del self._links[link]
            for side in (writer, to_broker):
                side.close()

    async def _pass(
        self,
        link: object,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: dict[int, tuple[int, int]],
        *,
        requests: bool,
    ) -> None:
        """Frames from one side to the other, until one of them is closed. A half-open link reads what comes and drops it."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(4)
                body = await reader.readexactly(struct.unpack(">i", head)[0])
                if requests:
                    api, version, correlation = struct.unpack(">hhi", body[:8])
                    asked[correlation] = (api, version)
                else:
                    body = self._reworded(asked.pop(struct.unpack(">i", body[:4])[0], (-1, -1)), body)
                await self._wait(len(body))
                if link in self._half_open:
                    continue
                writer.write(struct.pack(">i", len(body)) + body)
                await writer.drain()
        if requests or link not in self._half_open:  # the client's side of a half-open link stays open
            writer.close()

    async def _wait(self, size: int) -> None:
        """As long as the faults of the moment last, at most; one that is healed is over at once."""
        waited_s = 0.0
        while self.deaf or waited_s < self.delay_s + size / self.bytes_per_s:
            await asyncio.sleep(SLICE_S)
            waited_s += SLICE_S

    def _reworded(self, asked: tuple[int, int], body: bytes) -> bytes:
        """The response with the next lie that fits; every topic and partition of it has the error then."""
        if asked[0] not in {lie.api for lie in self.lies}:
            return body
        response = RESPONSES[asked].decode(body[4:])
        lie = next((lie for lie in self.lies if lie.api == asked[0] and lie.times and _tells(response, lie)), None)
        if lie is None:
            return body
        lie.times -= 1
        self.told[asked[0], lie.code] += 1
        response.topics = [
            (name, [(p[0], lie.code, *p[ERROR_AT + 1 :]) for p in partitions]) for name, partitions in response.topics
        ]
        return body[:4] + response.encode()


def _tells(response: Any, lie: Lie) -> bool:
    return any(name.endswith(lie.topic_end) for name, _ in response.topics)
