"""Topics: which ones driftline needs for a configuration, making them, and comparing what is there. Uses kafka-python.

The predictions topic is the user's: it is looked at, and made only when asked for. Nothing that exists is ever changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from stream.connection import (
    KafkaRefusedError,
    KafkaUnreachableError,
    client_log,
    kafka_python_settings,
    why_refused,
)
from stream.probe import why_unreachable
from stream.topics import FEEDBACK, GROWTH_REMEDY, TOPICS, TopicRole, TopicSpec, topic_config, topic_name

if TYPE_CHECKING:
    from stream.config import Config
    from stream.config_kafka import Kafka

REPLICATION_MAX = 3  # the default where there are brokers enough
CONNECT_S = 10.0
TOPIC_DENIED, TOPIC_EXISTS = 29, 36  # Kafka's error codes
EXACT = ("cleanup.policy", "message.timestamp.type")  # a wrong one breaks results; retention is the operator's business
AT_LEAST = ("min.compaction.lag.ms", "max.message.bytes")  # below: a blob lost while it is read; copies that do not fit
Difference = Literal["missing", "partitions", "policy"]


class AdminError(Exception):
    """Kafka is there and refuses, or the configuration's topics are not as they must be; the text says what to do."""


@dataclass(frozen=True, slots=True)
class NeededTopic:
    role: TopicRole
    name: str
    partitions: int
    settings: dict[str, str]
    meaning: str


@dataclass(frozen=True, slots=True)
class CreatedTopic:
    """`created` is False for one that was there before."""

    role: TopicRole
    name: str
    partitions: int
    replication: int
    created: bool


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic of the configuration as it is; `difference` None = as it must be, else `detail` says what is wrong."""

    role: TopicRole
    name: str
    partitions: int | None
    meaning: str
    difference: Difference | None = None
    detail: str = ""


@contextlib.contextmanager
def admin_client(kafka: Kafka, connect_s: float = CONNECT_S) -> Iterator[Any]:
    """A connected kafka.admin.KafkaAdminClient.

    Raises KafkaUnreachableError with the cause (KafkaRefusedError where it lasts), also when the broker goes later; AdminError
    when a request is refused.
    """
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError, RetriableError

    settings = kafka_python_settings(kafka)
    timeouts = {"bootstrap_timeout_ms": int(connect_s * 1000), "request_timeout_ms": 30_000}
    servers = ", ".join(kafka.bootstrap_servers)
    cause = why_unreachable(kafka)  # at once, and without the client, which would retry until its time is up
    if cause is not None:
        kind = KafkaRefusedError if cause.lasting else KafkaUnreachableError
        raise kind(f"cannot use Kafka at {servers}: {cause.text}")
    with client_log("kafka") as lines:
        client = KafkaAdminClient.__new__(KafkaAdminClient)
        try:
            client.__init__(**settings, **timeouts)
        except (KafkaError, OSError) as error:
            client._closed = False  # noqa: SLF001 - a constructor that fails leaves a thread and its sockets behind
            client.close()
            said = why_refused([*lines, str(error)])
            raise KafkaUnreachableError(f"cannot use Kafka at {servers}: {said}") from error
    with contextlib.closing(client):
        try:
            yield client
        except RetriableError as error:  # the broker went while it was asked, or is not ready: a later try may do
            raise KafkaUnreachableError(f"Kafka at {servers} went away: {type(error).__name__}: {error}") from error
        except KafkaError as error:
            raise AdminError(
                f"Kafka refused: {type(error).__name__}: {getattr(error, 'description', error)}"
            ) from error


def needed_topics(config: Config, prediction_partitions: int) -> tuple[NeededTopic, ...]:
    """Everything driftline writes, with P = `prediction_partitions` and M = config.monitors filled in."""
    counts = {"P": prediction_partitions, "M": config.monitors}

    def needed(spec: TopicSpec, name: str, meaning: str) -> NeededTopic:
        partitions = counts[spec.partitions] if spec.partitions in counts else int(spec.partitions)
        return NeededTopic(spec.role, name, partitions, topic_config(spec), meaning)

    own = [spec for spec in TOPICS if spec.role is not TopicRole.REKEYED]
    (copies,) = set(TOPICS) - set(own)
    return (
        *(needed(spec, topic_name(config.prefix, spec.role), spec.meaning) for spec in own),
        *(needed(copies, config.source(role), f"copies of {config.topic(role)}") for role in config.rekeyed()),
    )


def feedback_topics(config: Config, prediction_partitions: int) -> tuple[NeededTopic, ...]:
    """The user's topics of feedback: joined by prediction_id, so with as many partitions as the predictions topic, or as they are
    where they are re-keyed.
    """
    return tuple(
        NeededTopic(
            role,
            topic.name,
            prediction_partitions,
            {},
            f"{role.value}, {'re-keyed' if topic.rekey else 'by prediction_id'}",
        )
        for role, topic in config.topics.feedback().items()
    )


def joined_partitions(config: Config, counts: Mapping[str, int | None]) -> int | None:
    """P: partitions of the predictions topic; where it is re-keyed of its copies, once they have a topic. None = not known."""
    own = counts.get(config.source(TopicRole.PREDICTIONS))
    return own if own is not None else counts.get(config.topics.predictions.name)


def partition_count(kafka: Kafka, topic: str) -> int | None:
    """Number of partitions, None where there is no such topic."""
    with admin_client(kafka) as client:
        return _partition_counts(client, [topic])[topic]


def create_topics(
    config: Config, *, replication: int | None = None, with_inputs: int | None = None
) -> tuple[CreatedTopic, ...]:
    """Makes what is missing; `with_inputs` also the predictions topic, with so many partitions.

    replication: default 3, or as many as there are brokers. With 3 and more, min.insync.replicas=2, so that what was
    acknowledged survives the loss of a broker. Raises AdminError, KafkaUnreachableError.
    """
    with admin_client(config.kafka) as client:
        if replication is None:
            replication = min(REPLICATION_MAX, len(client.describe_cluster()["brokers"]))
        predictions = config.topics.predictions.name
        counts = _partition_counts(client, [predictions, config.source(TopicRole.PREDICTIONS)])
        count = counts[predictions]
        if count is None and with_inputs is None:
            raise AdminError(
                f"the predictions topic {predictions} does not exist: it is yours to make, or let `driftline topics create"
                " --with-inputs N` make it with N partitions"
            )
        needed = list(needed_topics(config, joined_partitions(config, counts) or with_inputs or 1))
        if with_inputs is not None:
            needed = [*feedback_topics(config, count or with_inputs), *needed]
        if count is None and with_inputs is not None:
            needed.insert(0, NeededTopic(TopicRole.PREDICTIONS, predictions, with_inputs, {}, "what the models write"))
        return tuple(_create(client, needed, replication))


def _create(client: Any, needed: Sequence[NeededTopic], replication: int) -> Iterator[CreatedTopic]:
    durable = {"min.insync.replicas": "2"} if replication >= REPLICATION_MAX else {}
    wanted = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": replication,
            "configs": topic.settings | durable,
        }
        for topic in needed
    }
    answers = {entry["name"]: entry for entry in client.create_topics(wanted, raise_errors=False)["topics"]}
    refused = [
        f"{name}: {'no right to Create it' if entry['error_code'] == TOPIC_DENIED else entry['error_message'] or entry['error_code']}"
        for name, entry in answers.items()
        if entry["error_code"] not in (0, TOPIC_EXISTS)
    ]
    if refused:
        raise AdminError("Kafka refused to make topics:\n  " + "\n  ".join(refused))
    made = [name for name, entry in answers.items() if entry["error_code"] == 0]
    if made:
        client.wait_for_topics(made)
    for topic in needed:
        yield CreatedTopic(topic.role, topic.name, topic.partitions, replication, topic.name in made)


def compare_topics(config: Config) -> tuple[TopicState, ...]:
    """Every topic of the configuration, predictions first, as it is against as it must be."""
    predictions = config.topics.predictions.name
    with admin_client(config.kafka) as client:
        own = [topic.name for topic in needed_topics(config, 1)]
        names = [predictions, *(topic.name for topic in feedback_topics(config, 1)), *own]
        counts = _partition_counts(client, names)
        settings = _topic_settings(client, [name for name in own if counts[name] is not None])
    source = joined_partitions(config, counts)
    first = TopicState(TopicRole.PREDICTIONS, predictions, counts[predictions], "what the models write")
    if first.partitions is None:
        first = TopicState(
            TopicRole.PREDICTIONS, predictions, None, first.meaning, "missing", "yours to make, or --with-inputs N"
        )
    needed = (*feedback_topics(config, source or 1), *needed_topics(config, source or 1))
    compared = (_compare(topic, counts[topic.name], settings.get(topic.name, {}), source) for topic in needed)
    any_count = {config.topic(role) for role in config.rekeyed()}
    return (first, *(_with_any_count(state) if state.name in any_count else state for state in compared))


def _with_any_count(state: TopicState) -> TopicState:
    """Of a topic that is re-keyed any number of partitions will do."""
    return replace(state, difference=None, detail="") if state.difference == "partitions" else state


def _compare(needed: NeededTopic, count: int | None, settings: dict[str, str], source: int | None) -> TopicState:
    difference: Difference | None = None
    detail = ""
    wrong = [
        f"{key} is {settings.get(key)}, must be {needed.settings[key]}"
        for key in EXACT
        if key in needed.settings and settings.get(key) != needed.settings[key]
    ] + [
        f"{key} is {settings.get(key)}, must be at least {needed.settings[key]}"
        for key in AT_LEAST
        if key in needed.settings and int(settings.get(key, 0)) < int(needed.settings[key])
    ]
    follows_source = needed.role in {TopicRole.DEAD_LETTERS, TopicRole.STATE_COLLECTOR, TopicRole.REKEYED, *FEEDBACK}
    if count is None:
        difference, detail = "missing", "driftline topics create"
        if needed.role in FEEDBACK:
            detail = f"yours to make with {needed.partitions} partitions, or driftline topics create --with-inputs N"
    elif count != needed.partitions and (source is not None or not follows_source):
        difference, detail = "partitions", _wrong_count(needed, count)
    elif wrong:
        difference, detail = "policy", "; ".join(wrong)
    return TopicState(needed.role, needed.name, count, needed.meaning, difference, detail)


def _wrong_count(needed: NeededTopic, count: int) -> str:
    """Both counts, and the way out."""
    both = f"has {count} partitions, must have {needed.partitions}"
    if needed.role in FEEDBACK:
        both = f"{both}, as many as the predictions topic, so that one worker has both of a prediction_id"
        return f"{both}. {_same_count(needed, count)}; or topics.{needed.role.value}.rekey: true"
    if needed.role is TopicRole.STATE_COLLECTOR:
        return (
            f"{both}, as many as the predictions topic. Where that has grown: {GROWTH_REMEDY}. Where this one was made by"
            " hand and holds nothing: delete it, then driftline topics create"
        )
    if needed.role is TopicRole.DEAD_LETTERS and count < needed.partitions:
        return f"{both}: kafka-topics.sh --alter --topic {needed.name} --partitions {needed.partitions}"
    return f"{both}: delete it where it holds nothing yet, then driftline topics create; else {GROWTH_REMEDY}"


def _same_count(needed: NeededTopic, count: int) -> str:
    """How a topic of feedback gets the predictions topic's number of partitions."""
    if count < needed.partitions:
        grow = f"kafka-topics.sh --alter --topic {needed.name} --partitions {needed.partitions}"
        return f"{grow} makes it so; what it holds now stays where it is, and that is joined only by chance"
    return (
        f"A topic cannot shrink: kafka-topics.sh --create --topic NAME --partitions {needed.partitions}, have it written to"
        f" instead, and name it in topics.{needed.role.value}"
    )


def _partition_counts(client: Any, names: Sequence[str]) -> dict[str, int | None]:
    found = {entry["name"]: entry for entry in client.describe_topics(list(names))}
    counts: dict[str, int | None] = {}
    for name in names:
        entry = found.get(name)
        counts[name] = len(entry["partitions"]) if entry is not None and entry["error_code"] == 0 else None
    return counts


def _topic_settings(client: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    from kafka.admin import ConfigResource, ConfigResourceType

    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answer = client.describe_configs(resources, config_filter="all")["topic"]
    return {name: {key: entry["value"] for key, entry in settings.items()} for name, settings in answer.items()}
