"""Sends one owner's outputs in order, with barriers, and says when they are acknowledged. Knows no Kafka client.

A barrier goes once everything before it is acknowledged; a run of barriers side by side goes together (the markers of one
edge to all panes partitions). What stands behind a waiting barrier and is none itself need not wait: the panes of the next
edges travel while a marker waits, so an edge costs one round trip. A reader may see them in that order anyway, whenever
a send is repeated.

Neighbours of one topic and partition travel as one parcel, with one future for all: a stream of nothing but bad events
costs as many dead letters as events, and a future each would be half of that cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stream.failpoints import reach
from stream.stage import Output

log = logging.getLogger(__name__)

RESEND_FIRST_S = 0.1
RESEND_MAX_S = 5.0
HELD_S = 5.0  # an output that waits for longer holds its partition back
SAY_S = 1.0  # one log line of all senders in so long
QUEUE_BYTES_MAX = 32 << 20  # outputs waiting for the broker, per owner; beyond it the partition is held back
PARCEL_BYTES_MAX = 192 << 10  # below the producer's own batches, so that a parcel always fits one
HEADER_BYTES = 10  # of one header's two lengths, at most

Parcel = tuple[Output, ...]
HandOver = Callable[
    [Parcel], Awaitable["asyncio.Future[Any]"]
]  # the future's result has `.offset`, of the first output
WorthRepeating = Callable[[BaseException], bool]
ToBeMended = Callable[[str, BaseException], bool]  # topic and error: the broker refuses until an operator has acted


class SenderClosedError(Exception):
    """The output was not sent, or nobody waited for its acknowledgement."""


@dataclass(slots=True)
class _Item:
    number: int
    run: int  # number of the first barrier of its run; its own where it is none
    outputs: Parcel  # one topic; more than one only where the partition is named and the same
    size: int  # bytes
    done: asyncio.Future[int]  # offset of the first output
    since_s: float  # of the loop's clock
    sent: int = 0  # of `outputs`, where they go one by one
    first: int = -1  # offset of the first output, once it is sent alone

    @property
    def topic(self) -> str:
        return self.outputs[0].topic

    @property
    def barrier(self) -> bool:
        return self.outputs[0].barrier


class Sender:
    """Never skips: a failed send is repeated until it is acknowledged, refused for good, or the sender is closed.

    What `to_be_mended` names is refused for now: it is repeated as well, one output at a time, because a topic that takes no
    parcel may take each of its outputs.
    """

    def __init__(
        self,
        hand_over: HandOver,
        worth_repeating: WorthRepeating,
        on_sent: Callable[[Output], None],
        to_be_mended: ToBeMended = lambda _topic, _error: False,
    ) -> None:
        self._hand_over = hand_over
        self._worth_repeating = worth_repeating
        self._to_be_mended = to_be_mended
        self._refused: set[int] = set()  # numbers of what waits for an operator
        self._alone = asyncio.Lock()
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
        """Queue outputs; one future a parcel, which tells the offset of its first output."""
        return [item.done for item in self._post(outputs)]

    def _post(self, outputs: Sequence[Output]) -> list[_Item]:
        if self._failed is not None:
            raise self._failed
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        posted = [self._queue(parcel, size) for parcel, size in parcels(outputs)]
        if self._bytes > QUEUE_BYTES_MAX:
            self._room.clear()
        self._wake.set()
        return posted

    def _queue(self, parcel: Parcel, size: int) -> _Item:
        last, done = self._last, asyncio.get_running_loop().create_future()
        done.add_done_callback(_seen)
        number, barrier = 0 if last is None else last.number + 1, parcel[0].barrier
        in_run = barrier and last is not None and last.barrier
        now_s = asyncio.get_running_loop().time()
        item = self._last = _Item(
            number, last.run if in_run and last is not None else number, parcel, size, done, now_s
        )
        (self._barriers if barrier else self._free).append(item)
        self._open[number] = item
        self._bytes += size
        return item

    async def room(self) -> None:
        """Wait until the queue is short: the partition is held back while its outputs cannot be written."""
        await self._room.wait()

    @property
    def blocked(self) -> bool:
        """Whether more waits than should, or for longer, or for an operator."""
        if not self._room.is_set() or self._refused:
            return True
        oldest = next(iter(self._open.values()), None)
        return oldest is not None and asyncio.get_running_loop().time() - oldest.since_s > HELD_S

    async def append(self, outputs: Sequence[Output]) -> tuple[int, ...]:
        """Offsets of `outputs`, once all are acknowledged."""
        items = self._post(outputs)
        firsts = await asyncio.gather(*(item.done for item in items))
        return tuple(first + i for item, first in zip(items, firsts, strict=True) for i in range(len(item.outputs)))

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
        for waiting in (self._free, self._barriers, self._open, self._refused):
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
            place = f"send:{item.topic}"
            for _ in item.outputs:
                reach(place)
            sent = await self._hand_over(item.outputs)
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
        self._refused.discard(item.number)
        self._bytes -= item.size
        if self._bytes <= QUEUE_BYTES_MAX // 2:
            self._room.set()
        place = f"acknowledged:{item.topic}"
        for output in item.outputs:
            reach(place)
            self._on_sent(output)
        item.done.set_result(item.first if item.sent else future.result().offset)
        self._wake.set()

    async def _again(self, item: _Item, error: BaseException | None, pause_s: float) -> None:
        """Repeat one output. A record that the broker will never take is the caller's error, not a reason to spin."""
        while not item.done.done():
            if error is not None and not self._worth_repeating(error):
                if not self._to_be_mended(item.topic, error):
                    self._fail(error)
                    return
                self._refused.add(item.number)
            _say(item.topic, error, pause_s, held=bool(self._refused))
            await asyncio.sleep(pause_s)
            if item.done.done():  # closed meanwhile
                return
            pause_s = min(pause_s * 2, RESEND_MAX_S)
            try:
                if item.number in self._refused:
                    future = await self._one_by_one(item)
                else:
                    future = await self._hand_over(item.outputs)
                await asyncio.wait([future])
                error = None if future.cancelled() else future.exception()
                if error is None and not future.cancelled():
                    self._on_reply(item, future)
            except Exception as failed:  # noqa: BLE001  judged at the top of the loop
                error = failed

    async def _one_by_one(self, item: _Item) -> asyncio.Future[Any]:
        """Send what is left of a parcel, each output once the one before it is acknowledged; the last one's reply.

        Raises SenderClosedError.
        """
        async with self._alone:
            while not item.done.done():
                future = await self._hand_over((item.outputs[item.sent],))
                reply = await future
                item.first = reply.offset if item.sent == 0 else item.first
                item.sent += 1
                if item.sent == len(item.outputs):
                    return future
        raise SenderClosedError("closed before the rest of a parcel was sent")


class _Said:
    at_s = float("-inf")
    kept = 0


def _say(topic: str, error: BaseException | None, pause_s: float, *, held: bool) -> None:
    """One line a second of all senders: a broker that is away fails thousands of outputs at once."""
    now_s = asyncio.get_running_loop().time()
    if now_s - _Said.at_s < SAY_S:
        _Said.kept += 1
        return
    more = f" ({_Said.kept} more like this)" if _Said.kept else ""
    _Said.at_s, _Said.kept = now_s, 0
    what = "refused, its partition is held back until the topic is mended" if held else "not acknowledged"
    name = type(error).__name__ if error is not None else "cancelled"
    log.warning("output to %s %s: %s (%r), again in %.1f s%s", topic, what, name, error, pause_s, more)


def _seen(done: asyncio.Future[int]) -> None:
    """A failure nobody waits for is kept in `_failed`; asyncio need not complain as well."""
    if not done.cancelled():
        done.exception()


def parcels(outputs: Sequence[Output]) -> Iterator[tuple[Parcel, int]]:
    """The outputs in order, each with neighbours that may travel with it, and the bytes of each parcel."""
    parcel: list[Output] = []
    total = 0
    place: tuple[str, int] | None = None  # of what may join the parcel
    for output in outputs:
        size = _size(output)
        if parcel and (place != (output.topic, output.partition) or output.barrier or total + size > PARCEL_BYTES_MAX):
            yield tuple(parcel), total
            parcel, total = [], 0
        if not parcel:
            alone = output.partition is None or output.barrier
            place = None if alone or output.partition is None else (output.topic, output.partition)
        parcel.append(output)
        total += size
    if parcel:
        yield tuple(parcel), total


def _size(output: Output) -> int:
    _, key, value, _, headers, _ = output
    total = len(key or b"") + len(value or b"") + HEADER_BYTES * len(headers) + 64
    for name, content in headers:
        total += (len(name) if name.isascii() else len(name.encode())) + (len(content) if content else 0)
    return total
