"""What a commit of the copiers' group says, and where copying begins in the log as it is. Pure.

The metadata of a commit names the log that its offset is one of: the topic's id, and how many logs of it were given up before. An
offset without such metadata was committed by something else, an operator's tool or one that mirrors groups: copying goes on there,
and that is said, for what lies between it and what was copied is skipped, or was copied before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
import xxhash

FOREIGN_SHOWN = 60  # characters of somebody else's metadata, in a message


class CopiedLog(NamedTuple):
    """topic_id "": brokers that know no ids. given_up: logs of this id that were given up before it."""

    topic_id: str
    given_up: int = 0

    def metadata(self) -> str:
        return orjson.dumps(list(self)).decode()

    def name(self, topic: str) -> int:
        """As copies carry it."""
        return xxhash.xxh3_64_intdigest(f"{topic}/{self.topic_id}/{self.given_up}".encode())

    def is_another(self, topic_id: str) -> bool:
        """Whether the topic is known to have been made anew; ids that are not known say nothing."""
        return bool(self.topic_id and topic_id and self.topic_id != topic_id)


class Committed(NamedTuple):
    """An offset of the group with its metadata, as they came."""

    offset: int
    metadata: str

    @property
    def log(self) -> CopiedLog | None:
        """None = something else has committed it."""
        try:
            told = orjson.loads(self.metadata)
        except ValueError:
            return None
        if not (isinstance(told, list) and [type(part) for part in told] == [str, int]):
            return None
        log = CopiedLog(*told)
        return log if log.given_up >= 0 else None


class LogLost(Exception):  # noqa: N818 - ends the worker
    """A topic was made anew or has lost its end."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where copying begins in one partition. lost: offsets that retention took before they were copied; said: to the operator."""

    offset: int
    log: CopiedLog
    lost: int = 0
    said: list[str] = field(default_factory=list)


def beginning(
    place: str, committed: Committed | None, topic_id: str, bounds: tuple[int, int], *, give_up: bool
) -> Beginning:
    """place: topic and partition, for messages; bounds: of its log. `give_up`: a log that is lost is given up for the one that is
    there. Raises LogLost.
    """
    begin, end = bounds
    if committed is None:
        return Beginning(begin, CopiedLog(topic_id))
    known = committed.log or CopiedLog("")
    if known.is_another(topic_id) or committed.offset > end:
        what = "was deleted and made again" if known.is_another(topic_id) else "has lost its end"
        loss = f"{place} {what}: it was copied up to {committed.offset}, it holds {begin} to {end}"
        if not give_up:
            raise LogLost(f"{loss}. on_data_loss: reset copies the new log from its beginning")
        return Beginning(
            begin, CopiedLog(topic_id, known.given_up + 1), 0, [f"{loss}; it is copied from its beginning"]
        )
    offset = max(committed.offset, begin)
    said: list[str] = []
    if committed.log is None:
        shown = repr(committed.metadata[:FOREIGN_SHOWN])
        said.append(
            f"{place}: its offset {committed.offset} was committed by something else, with metadata {shown}: copying goes on there;"
            " what was not copied before it is skipped"
        )
    if offset > committed.offset:
        said.append(f"{place}: retention has taken {committed.offset} to {offset} before they were copied")
    return Beginning(offset, CopiedLog(topic_id, known.given_up), offset - committed.offset, said)
