"""Compares the rights that a command needs with those that the cluster grants, before anything runs.

The cluster says with a topic's metadata what the client may do with it. A broker that does not say (before Kafka 2.3, or one
that only speaks the protocol) is believed, and refuses later by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stream.admin import TOPIC_DENIED, AdminError, admin_client
from stream.rights import Operation, Right, Use, rights

if TYPE_CHECKING:
    from stream.config import Config

COORDINATOR_S = 10.0  # the first question for a group makes a new cluster create its topic of offsets
COORDINATOR_POLL_S = 0.2
GROUP_DENIED = 30  # Kafka's error code
NAMES = {operation: operation.name for operation in Operation}  # kafka-python's
#: Create is granted on the cluster or on a topic that need not exist: only the creation itself tells.
UNKNOWN_BEFORE = frozenset({Operation.CREATE})


def require_rights(config: Config, use: Use) -> None:
    """Raises AdminError naming every right that is missing, KafkaUnreachableError. Cost: one connection, three requests."""
    with admin_client(config.kafka) as client:
        lacking = list(_lacking(client, list(rights(config, use))))
    if lacking:
        who = config.kafka.security.username
        whom = f"user {who}" if who else "this client"
        lines = [f"  {right.resource} {right.name}: {', '.join(right.operations)}" for right in lacking]
        raise AdminError(
            "\n".join([
                f"Kafka does not grant {whom} what `{use.value}` needs:", *lines,
                "`driftline topics rights` prints all of it, with the arguments of kafka-acls",
            ])
        )  # fmt: skip


def _lacking(client: Any, wanted: list[Right]) -> Iterable[Right]:
    names = [right.name for right in wanted if right.resource == "topic"]
    found = {entry["name"]: entry for entry in client.describe_topics(names)}
    for right in wanted:
        if right.resource == "group":
            if _group_denied(client, right.name):
                yield right
            continue
        entry = found.get(right.name, {})
        needed = [operation for operation in right.operations if operation not in UNKNOWN_BEFORE]
        if entry.get("error_code") == TOPIC_DENIED:  # not even visible: it may be that it is not there
            yield Right(right.use, right.resource, right.name, right.operations)
            continue
        granted = entry.get("authorized_operations")
        if not granted:
            continue
        if missing := tuple(operation for operation in needed if NAMES[operation] not in granted):
            yield Right(right.use, right.resource, right.name, missing)


def _group_denied(client: Any, group: str) -> bool:
    """Whether Read is missing. A heartbeat of nobody: whoever may read the group hears that there is no such member."""
    from kafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError, NotCoordinatorError
    from kafka.protocol.consumer import HeartbeatRequest

    manager = client._manager  # noqa: SLF001  kafka-python has no public way to ask without effect

    async def ask() -> int:
        coordinator = (await client._find_coordinator_ids([group]))[group]  # noqa: SLF001
        request = HeartbeatRequest(group_id=group, generation_id=-1, member_id="nobody")
        return int((await manager.send(request, node_id=coordinator)).error_code)

    deadline = time.monotonic() + COORDINATOR_S
    while time.monotonic() < deadline:
        try:
            return bool(manager.run(ask) == GROUP_DENIED)
        except GroupAuthorizationFailedError:
            return True
        except (CoordinatorNotAvailableError, NotCoordinatorError):
            time.sleep(COORDINATOR_POLL_S)
    return False
