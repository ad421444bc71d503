"""Sends one owner's outputs in order, with barriers, and says when they are acknowledged. Knows no Kafka client.

A barrier goes once everything before it is acknowledged; a run of barriers side by side goes together (the markers of one
edge to all panes partitions). What stands behind a waiting barrier and is none itself need not wait: the panes of the next
edges travel while a marker waits, so an edge costs one round trip. A reader may see them in that order anyway, whenever
a send is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stream.failpoints import reach
from stream.stage import Output

log = logging.getLogger(__name__)

RESEND_FIRST_S = 0.1
RESEND_MAX_S = 5.0
QUEUE_BYTES_MAX = 32 << 20  # outputs waiting for the broker, per owner; beyond it the partition is held back

HandOver = Callable[[Output], Awaitable["asyncio.Future[Any]"]]  # the future's result has `.offset`
WorthRepeating = Callable[[BaseException], bool]


class SenderClosedError(Exception):
    """The output was not sent, or nobody waited for its acknowledgement."""


@dataclass(slots=True)
class _Item:
    number: int
    run: int  # number of the first barrier of its run; its own where it is none
    output: Output
    done: asyncio.Future[int]


class Sender:
    """Never skips: a failed send is repeated until it is acknowledged, refused for good, or the sender is closed."""

    def __init__(self, hand_over: HandOver, worth_repeating: WorthRepeating, on_sent: Callable[[Output], None]) -> None:
        self._hand_over = hand_over
        self._worth_repeating = worth_repeating
        self._on_sent = on_sent
        self._free: deque[_Item] = deque()
        self._barriers: deque[_Item] = deque()
        self._open: dict[int, _Item] = {}  # posted and not acknowledged, in order
        self._last: _Item | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._failed: BaseException | None = None

    def post(self, outputs: Sequence[Output]) -> list[asyncio.Future[int]]:
        """Queue outputs; the futures tell their offsets."""
        if self._failed is not None:
            raise self._failed
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        posted = [self._queue(output) for output in outputs]
        if self._bytes > QUEUE_BYTES_MAX:
            self._room.clear()
        self._wake.set()
        return posted

    def _queue(self, output: Output) -> asyncio.Future[int]:
        last, done = self._last, asyncio.get_running_loop().create_future()
        done.add_done_callback(_seen)
        number = 0 if last is None else last.number + 1
        in_run = output.barrier and last is not None and last.output.barrier
        item = self._last = _Item(number, last.run if in_run and last is not None else number, output, done)
        (self._barriers if output.barrier else self._free).append(item)
        self._open[number] = item
        self._bytes += _size(output)
        return done

    async def room(self) -> None:
        """Wait until the queue is short: the partition is held back while its outputs cannot be written."""
        await self._room.wait()

    @property
    def blocked(self) -> bool:
        """Whether more waits than should."""
        return not self._room.is_set()

    async def append(self, outputs: Sequence[Output]) -> tuple[int, ...]:
        """Offsets of `outputs`, once all are acknowledged."""
        return tuple(await asyncio.gather(*self.post(outputs)))

    async def acknowledged(self) -> None:
        """Wait for everything that was posted before."""
        if self._open:
            await asyncio.gather(*(item.done for item in self._open.values()))
        if self._failed is not None:  # it may have been lost before anybody waited
            raise self._failed

    async def close(self) -> None:
        """Stop sending; what is queued is void (its owner is dead or gone)."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._fail(SenderClosedError("its owner has given the partition up"))

    def _fail(self, error: BaseException) -> None:
        """Nothing more is sent: what waits, and whoever asks later, learns why."""
        self._failed = self._failed or error
        for item in self._open.values():
            if not item.done.done():
                item.done.set_exception(self._failed)
        for waiting in (self._free, self._barriers, self._open):
            waiting.clear()
        self._room.set()

    async def _run(self) -> None:
        while True:
            if self._free:
                await self._send(self._free.popleft())
            elif self._barriers and next(iter(self._open)) >= self._barriers[0].run:
                await self._send(self._barriers.popleft())
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _send(self, item: _Item) -> None:
        try:
            reach(f"send:{item.output.topic}")
            sent = await self._hand_over(item.output)
        except Exception as error:  # noqa: BLE001  judged where it is repeated
            await self._again(item, error, RESEND_FIRST_S)
            return
        sent.add_done_callback(lambda future: self._on_reply(item, future))

    def _on_reply(self, item: _Item, future: asyncio.Future[Any]) -> None:
        if item.done.done():
            return
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            task = asyncio.ensure_future(self._again(item, error, RESEND_FIRST_S))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return
        del self._open[item.number]
        self._bytes -= _size(item.output)
        if self._bytes <= QUEUE_BYTES_MAX // 2:
            self._room.set()
        reach(f"acknowledged:{item.output.topic}")
        self._on_sent(item.output)
        item.done.set_result(future.result().offset)
        self._wake.set()

    async def _again(self, item: _Item, error: BaseException | None, pause_s: float) -> None:
        """Repeat one output. A record that the broker will never take is the caller's error, not a reason to spin."""
        while not item.done.done():
            if error is not None and not self._worth_repeating(error):
                self._fail(error)
                return
            log.warning("output to %s not acknowledged (%r), again in %.1f s", item.output.topic, error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESEND_MAX_S)
            try:
                future = await self._hand_over(item.output)
                await asyncio.wait([future])
                error = None if future.cancelled() else future.exception()
                if error is None and not future.cancelled():
                    self._on_reply(item, future)
            except Exception as failed:  # noqa: BLE001  judged at the top of the loop
                error = failed


def _seen(done: asyncio.Future[int]) -> None:
    """A failure nobody waits for is kept in `_failed`; asyncio need not complain as well."""
    if not done.cancelled():
        done.exception()


def _size(output: Output) -> int:
    return len(output.key or b"") + len(output.value or b"") + 64
