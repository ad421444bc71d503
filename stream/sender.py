"""Sends one owner's outputs in order, with barriers, and says when they are acknowledged. Knows no Kafka client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    output: Output
    done: asyncio.Future[int]


class Sender:
    """Sends one owner's outputs in order. Never skips: a failed send is repeated until it is acknowledged or closed."""

    def __init__(self, hand_over: HandOver, worth_repeating: WorthRepeating, on_sent: Callable[[Output], None]) -> None:
        self._hand_over = hand_over
        self._worth_repeating = worth_repeating
        self._on_sent = on_sent
        self._queue: deque[_Item] = deque()
        self._unacknowledged: set[asyncio.Future[int]] = set()
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
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run())
        items = [_Item(output, loop.create_future()) for output in outputs]
        for item in items:
            item.done.add_done_callback(_seen)
        self._queue.extend(items)
        self._bytes += sum(_size(output) for output in outputs)
        if self._bytes > QUEUE_BYTES_MAX:
            self._room.clear()
        self._wake.set()
        return [item.done for item in items]

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
        waiting = [item.done for item in self._queue] + list(self._unacknowledged)
        if waiting:
            await asyncio.gather(*waiting)
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
        for done in [*(item.done for item in self._queue), *self._unacknowledged]:
            if not done.done():
                done.set_exception(self._failed)
        self._queue.clear()
        self._room.set()

    async def _run(self) -> None:
        while True:
            while self._queue:
                if self._queue[0].output.barrier and self._unacknowledged:
                    await asyncio.wait(set(self._unacknowledged))
                    continue
                item = self._queue.popleft()
                self._unacknowledged.add(item.done)
                item.done.add_done_callback(self._unacknowledged.discard)
                await self._send(item)
            self._wake.clear()
            await self._wake.wait()

    async def _send(self, item: _Item) -> None:
        try:
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
        self._bytes -= _size(item.output)
        if self._bytes <= QUEUE_BYTES_MAX // 2:
            self._room.set()
        self._on_sent(item.output)
        item.done.set_result(future.result().offset)

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
