"""Whose the topics of a prefix are: one record in the control topic, key `owner/workers`.

Workers that share a prefix share one consumer group, so two deployments with one prefix would take turns at the same
states: what one counted with its mapping the other would go on counting with its own. The record names the cluster and a
hash of everything in the configuration that counting depends on; `take_ownership` writes it at a start, and refuses when
it names another configuration while workers of the group are alive, or another cluster. A running worker that finds
another hash in the record stops (upkeep). So a change of what is counted is: stop all workers, start them again.

What this does not see: two clusters with the same prefix are two separate worlds; that they share a machine or a folder
is no fault, since nothing but a temporary folder is on disk.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream.admin import admin_client
from stream.feedback_planning import feedback_deciding
from stream.references import OWNER_KEY, write_control
from stream.topics import TopicRole

if TYPE_CHECKING:
    from stream.config import Config, Target

log = logging.getLogger(__name__)

GROUP_EMPTY_S = 12.0  # a worker that was killed is a member until its session has timed out (10 s)
POLL_S = 0.5
HASH_LENGTH = 32
SAMPLED = {"kind", "range", "watch", "coerce"}  # of a target: what its counts depend on; tolerances do not


class OwnerError(Exception):
    """Another deployment owns the topics of this prefix."""


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """`cluster`: the cluster's id. `counting`: hash of the configuration, see counting_hash."""

    cluster: str
    counting: str

    def encode(self) -> bytes:
        return orjson.dumps({"cluster": self.cluster, "counting": self.counting}, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, value: bytes) -> OwnerRecord:
        """Raises ValueError."""
        try:
            body = orjson.loads(value)
            return cls(str(body["cluster"]), str(body["counting"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"owner record cannot be read: {error!r}") from error


def _counted(target: Target) -> dict[str, Any]:
    """What its counts depend on; one that is no array says what it said before there were any."""
    settings = target.model_dump(mode="json", include=SAMPLED)
    return settings if target.dimension is None else settings | {"dimension": target.dimension}


def counting_hash(config: Config) -> str:
    """Of what every worker of a group must agree on: what is read, how, and into which panes it is counted.

    References are not in it: they change while workers run, by decisions. Nor are tolerances, budgets and windows.
    """
    models = {
        name: {
            "segments": {key: sorted(values) for key, values in model.segments.items()},
            "targets": {key: _counted(target) for key, target in model.targets.items()},
        }
        for name, model in config.models.items()
    }
    deciding: dict[str, Any] = {
        "predictions": config.topics.predictions.model_dump(mode="json", exclude_none=True),
        "models": models,
        "resolution_ms": config.resolution.ms,
        "max_future_skew_ms": config.max_future_skew.ms,
        "dedup": config.dedup,
        "monitors": config.monitors,
    }
    if config.topics.feedback():  # a configuration without keeps its hash
        deciding["feedback"] = feedback_deciding(config)
    return hashlib.sha256(orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS)).hexdigest()[:HASH_LENGTH]


def take_ownership(config: Config, found: bytes | None, group: str) -> OwnerRecord:
    """The record of this configuration, written if it is not `found`, the value in the control topic.

    Raises OwnerError naming both, AdminError, KafkaUnreachableError. Waits up to GROUP_EMPTY_S for killed workers to go.
    """
    with admin_client(config.kafka) as client:
        mine = OwnerRecord(str(client.describe_cluster()["cluster_id"]), counting_hash(config))
        try:
            theirs = OwnerRecord.decode(found) if found is not None else None
        except ValueError as error:
            raise OwnerError(f"topic {config.topic(TopicRole.CONTROL)}: {error}") from error
        if theirs is not None:
            require_same(theirs, mine, config.prefix, members=lambda: _members(client, group))
    if theirs != mine:
        if theirs is not None:
            log.warning("prefix %s: configuration %s follows %s", config.prefix, mine.counting, theirs.counting)
        write_control(config, OWNER_KEY, mine.encode())
    return mine


def require_same(theirs: OwnerRecord, mine: OwnerRecord, prefix: str, members: Callable[[], int]) -> None:
    """Raises OwnerError if the record is another deployment's that is at work; `members()`: how many workers there are.

    Waits up to GROUP_EMPTY_S for them to go.
    """
    if theirs.cluster != mine.cluster:
        raise OwnerError(
            f"prefix {prefix}: its topics were made for cluster {theirs.cluster}, this is cluster {mine.cluster}: copied "
            "state has offsets that mean nothing here; use another prefix, or delete the copied topics"
        )
    if theirs.counting == mine.counting:
        return
    deadline = time.monotonic() + GROUP_EMPTY_S
    while members():
        if time.monotonic() > deadline:
            raise refusal(theirs, mine, prefix)
        time.sleep(POLL_S)


def refusal(theirs: OwnerRecord, mine: OwnerRecord, prefix: str) -> OwnerError:
    return OwnerError(
        f"prefix {prefix}: other workers of it are at work with configuration {theirs.counting} on cluster "
        f"{theirs.cluster}, this one has {mine.counting} on {mine.cluster}: stop them first, or use another prefix"
    )


def _members(client: Any, group: str) -> int:
    return len(client.describe_groups([group])[group]["members"])
