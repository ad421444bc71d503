"""What driftline may do on a cluster that asks: every right of every command, the least that works, in one place.

`driftline topics rights` prints it, the README's table is made of it, rights_check compares it with what the cluster grants, and
tests/faults/test_secured_brokers.py grants exactly this and runs everything under it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from stream.topics import FEEDBACK, INPUTS, TOPICS, TopicRole

if TYPE_CHECKING:
    from stream.config import Config

OWN_GROUP = "workers"  # prefix + this
COPY_GROUP = "rekey"  # likewise, of those who copy topics that are re-keyed
Resource = Literal["topic", "group"]


class Operation(StrEnum):
    """Kafka's names. Read and Write imply Describe; DescribeConfigs and Create imply nothing."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


class Use(StrEnum):
    """Who needs rights: a command, or another program that reads what driftline writes."""

    RUN = "run"
    TOPICS_CREATE = "topics create"
    TOPICS_LIST = "topics list"
    REFERENCE_LIST = "reference list"
    REFERENCE_WRITE = "reference build"
    DLQ_READ = "dlq ls"
    DLQ_RETRY = "dlq retry"
    ALERTS = "consumer of alerts"


ALSO: dict[Use, str] = {
    Use.RUN: "run --workers, run --drain",
    Use.TOPICS_CREATE: "with --with-inputs also Create on the predictions topic",
    Use.TOPICS_LIST: "check-config --connect",
    Use.REFERENCE_WRITE: "reference promote, reference rollback",
    Use.DLQ_READ: "dlq show",
    Use.ALERTS: "and Read on its own group",
}

R, W = Operation.READ, Operation.WRITE
CREATE, DESCRIBE, CONFIGS = Operation.CREATE, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS
ROLES = tuple(spec.role for spec in TOPICS)

#: What a worker does with each topic; DescribeConfigs, because a wrong cleanup policy is refused at the start.
_RUN = {
    TopicRole.PREDICTIONS: (R,),
    **dict.fromkeys(FEEDBACK, (R,)),
    TopicRole.PERFORMANCE: (W, CONFIGS),
    TopicRole.PANES: (R, W, CONFIGS),
    TopicRole.WINDOWS: (W, CONFIGS),
    TopicRole.ALERTS: (W, CONFIGS),
    TopicRole.DEAD_LETTERS: (W, CONFIGS),
    TopicRole.REFERENCES: (R, W, CONFIGS),
    TopicRole.CONTROL: (R, W, CONFIGS),
    TopicRole.JOURNAL: (W, CONFIGS),
    TopicRole.STATE_COLLECTOR: (R, W, CONFIGS),
    TopicRole.STATE_MONITOR: (R, W, CONFIGS),
    TopicRole.REKEYED: (R, W, CONFIGS),
}
_TOPICS: dict[Use, dict[TopicRole, tuple[Operation, ...]]] = {
    Use.RUN: _RUN,
    Use.TOPICS_CREATE: dict.fromkeys(INPUTS, (DESCRIBE,)) | dict.fromkeys(ROLES, (CREATE, DESCRIBE)),
    Use.TOPICS_LIST: dict.fromkeys(INPUTS, (DESCRIBE,)) | dict.fromkeys(ROLES, (DESCRIBE, CONFIGS)),
    Use.REFERENCE_LIST: {TopicRole.REFERENCES: (R,), TopicRole.CONTROL: (R,)},
    Use.REFERENCE_WRITE: {TopicRole.REFERENCES: (R, W), TopicRole.CONTROL: (R, W)},
    Use.DLQ_READ: {TopicRole.DEAD_LETTERS: (R,)},
    Use.DLQ_RETRY: dict.fromkeys((TopicRole.DEAD_LETTERS, *INPUTS), (R, W)),
    Use.ALERTS: {TopicRole.ALERTS: (R,)},
}


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on one resource that one use needs. `name` is the resource's in the cluster."""

    use: Use
    resource: Resource
    name: str
    operations: tuple[Operation, ...]

    def acls_arguments(self, principal: str) -> list[str]:
        """Arguments of Kafka's kafka-acls that grant it; the caller adds --bootstrap-server."""
        operations = [word for operation in self.operations for word in ("--operation", operation.value)]
        return ["--add", "--allow-principal", principal, *operations, f"--{self.resource}", self.name]


def group_id(config: Config) -> str:
    """One consumer group per prefix: who shares the prefix shares the work."""
    return f"{config.prefix}{OWN_GROUP}"


def copy_group_id(config: Config) -> str:
    """The group that shares the topics that are re-keyed."""
    return f"{config.prefix}{COPY_GROUP}"


def rights(config: Config, use: Use) -> Iterator[Right]:
    """What `use` needs under this configuration, topics in the order of the table; on the cluster itself nothing."""
    there = config.roles()
    for role, operations in _TOPICS[use].items():
        if role in there:
            yield Right(use, "topic", config.topic(role), operations)
        elif role is TopicRole.REKEYED:
            for topic in config.rekeyed():
                yield Right(use, "topic", config.source(topic), operations)
    if use is Use.RUN:
        yield Right(use, "group", group_id(config), (R,))
        if config.rekeyed():
            yield Right(use, "group", copy_group_id(config), (R,))


def table() -> Iterator[tuple[str, str, str]]:
    """Rows for the reader: use and what else it stands for, resource, operations; alike resources in one row."""
    for use in Use:
        alike: dict[tuple[Operation, ...], list[str]] = {}
        for role, operations in _TOPICS[use].items():
            alike.setdefault(operations, []).append(role.value)
        who = f"`{use.value}`" + (f" ({ALSO[use]})" if use in ALSO else "")
        for operations, roles in alike.items():
            yield who, f"topic {', '.join(f'`{role}`' for role in roles)}", ", ".join(operations)
        if use is Use.RUN:
            yield who, f"group `{OWN_GROUP}`, with `rekey` also `{COPY_GROUP}`", R.value
