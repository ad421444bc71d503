"""The owner's epoch on the records that it sends: how a monitor tells an owner from its predecessor."""

from __future__ import annotations

from collections.abc import Iterable

from stream.panes import EPOCH_HEADER
from stream.stage import Output
from stream.topics import TopicRole


def stamp(output: Output, epoch: int) -> Output:
    """The output as it is sent: panes and markers carry the epoch of the owner that sends them."""
    if output.topic != TopicRole.PANES:
        return output
    kept = tuple(header for header in output.headers if header[0] != EPOCH_HEADER)
    return output._replace(headers=(*kept, (EPOCH_HEADER, str(epoch).encode())))


def epoch_of(headers: Iterable[tuple[str, bytes]]) -> int:
    """Inverse of stamp; 0 = not stamped."""
    return next((int(value) for name, value in headers if name == EPOCH_HEADER), 0)
