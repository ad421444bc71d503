"""Every topic that driftline reads or writes: its role, name, key and policy, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TopicRole(StrEnum):
    PREDICTIONS = "predictions"
    CLICKS = "clicks"
    CONVERSIONS = "conversions"
    LABELS = "labels"
    PANES = "panes"
    WINDOWS = "windows"
    PERFORMANCE = "performance"
    ALERTS = "alerts"
    DEAD_LETTERS = "dead-letters"
    REFERENCES = "references"
    CONTROL = "control"
    JOURNAL = "journal"
    STATE_COLLECTOR = "state.collector"
    STATE_MONITOR = "state.monitor"
    REKEYED = "rekeyed"
    """One for each of INPUTS with `rekey`; named by rekeyed_name."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """`partitions`: "P" as the predictions topic, "M" as the monitor's, or a number.

    Retention is in days; None = compacted.
    """

    role: TopicRole
    key: str
    partitions: str
    retention_d: int | None
    meaning: str
    extra: tuple[tuple[str, str], ...] = ()


FEEDBACK = (TopicRole.CLICKS, TopicRole.CONVERSIONS, TopicRole.LABELS)
INPUTS = (TopicRole.PREDICTIONS, *FEEDBACK)
"""The user's own topics; only the first is always there."""

DAY_MS = 86_400_000
COMPACTED = (("cleanup.policy", "compact"), ("min.compaction.lag.ms", "600000"))

TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(TopicRole.PANES, "model", "M", 7, "statistics per source partition and pane; markers"),
    TopicSpec(TopicRole.WINDOWS, "model", "M", 90, "every closed window: counts, distances, evidence"),
    TopicSpec(
        TopicRole.PERFORMANCE,
        "model",
        "M",
        90,
        "metrics by clicks, conversions and labels, once final: CloudEvents 1.0",
    ),
    TopicSpec(TopicRole.ALERTS, "model", "M", 90, "opened, escalated, resolved: CloudEvents 1.0"),
    TopicSpec(TopicRole.DEAD_LETTERS, "original key", "P", 14, "what could not be read, as it came, with the reason"),
    TopicSpec(TopicRole.REFERENCES, "reference id", "1", None, "reference profiles in chunks"),
    TopicSpec(TopicRole.CONTROL, "kind/name", "1", None, "active references, configuration revisions"),
    TopicSpec(TopicRole.JOURNAL, "stage/partition", "1", 365, "every decision that the input log does not determine"),
    TopicSpec(TopicRole.STATE_COLLECTOR, "snapshot key", "P", None, "snapshots of the collectors"),
    TopicSpec(TopicRole.STATE_MONITOR, "snapshot key", "M", None, "snapshots of the monitors"),
    TopicSpec(
        TopicRole.REKEYED,
        "original key; partition by the event's id",
        "P",
        7,
        "`rekeyed.TOPIC`: copies of a topic of yours with `rekey`, one such topic for each",
        (("max.message.bytes", "4000000"),),
    ),
)


def topic_name(prefix: str, role: TopicRole) -> str:
    """Name of an internal or output topic. The predictions topic is the user's and comes from the configuration."""
    return f"{prefix}{role.value}"


def rekeyed_name(prefix: str, topic: str) -> str:
    """Name of the topic with the copies of a user's topic."""
    return f"{topic_name(prefix, TopicRole.REKEYED)}.{topic}"


def topic_config(spec: TopicSpec) -> dict[str, str]:
    """Broker settings of one topic. The broker's clock stamps every record: it refuses those stamped an hour ahead, and its
    retention and compaction lag go by these times, so a worker whose clock jumps would stop, or have its claims compacted.
    """
    settings = (
        dict(COMPACTED)
        if spec.retention_d is None
        else {"cleanup.policy": "delete", "retention.ms": str(spec.retention_d * DAY_MS)}
    )
    return settings | {"message.timestamp.type": "LogAppendTime"} | dict(spec.extra)


GROWTH_REMEDY = (
    "keys move between partitions when a topic grows, so states per partition cannot follow: stop the workers, choose another"
    " prefix, driftline topics create, start again; counting begins anew there, what the old prefix holds stays readable"
)


def growth_refusal(topic: str, pinned: int, found: int) -> str:
    """Why a topic with another number of partitions than at the start is refused, and the way out."""
    return f"{topic} had {pinned} partitions and has {found} now: {GROWTH_REMEDY}"
