"""Topics on a real broker: made once, compared, never changed."""

from __future__ import annotations

from typing import Any

import pytest

from stream.admin import AdminError, compare_topics, create_topics, partition_count
from stream.config import Config, config_from
from stream.topics import FEEDBACK, TOPICS, TopicRole, topic_name

pytestmark = pytest.mark.kafka
STAMP = "message.timestamp.type is CreateTime, must be LogAppendTime"


def settings_of(kafka: Any, prefix: str, **more: Any) -> Config:
    return config_from(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "topics": {"predictions": f"{prefix}predictions-in"},
            "prefix": prefix,
            "models": {"fraud": {"reference": {"first": 100_000}}},
            "monitors": 2,
            **more,
        }
    )


def test_topics_are_made_once_and_as_the_table_says(kafka: Any, prefix: str) -> None:
    config = settings_of(kafka, prefix)
    assert {state.difference for state in compare_topics(config)} == {"missing"}
    with pytest.raises(AdminError, match="--with-inputs"):
        create_topics(config)

    made = create_topics(config, with_inputs=3)
    unasked = {*FEEDBACK, TopicRole.REKEYED}  # neither is configured
    assert {topic.role for topic in made} == set(TopicRole) - unasked
    assert all(topic.created for topic in made)
    partitions = {topic.role: topic.partitions for topic in made}
    assert partitions[TopicRole.PREDICTIONS] == partitions[TopicRole.STATE_COLLECTOR] == 3
    assert partitions[TopicRole.PANES] == partitions[TopicRole.STATE_MONITOR] == 2
    assert partitions[TopicRole.CONTROL] == 1
    assert partition_count(config.kafka, config.topics.predictions.name) == 3
    assert [state.detail for state in compare_topics(config) if state.difference] == []

    again = create_topics(config)
    assert not any(topic.created for topic in again)


def test_wrong_partitions_and_policies_are_named(kafka: Any, prefix: str) -> None:
    config = settings_of(kafka, prefix)
    kafka.create_topic(config.topics.predictions.name, 2)
    kafka.create_topic(topic_name(prefix, TopicRole.DEAD_LETTERS), 3)
    kafka.create_topic(topic_name(prefix, TopicRole.CONTROL), 1)
    stamped = {"message.timestamp.type": "LogAppendTime"}
    kafka.create_topic(topic_name(prefix, TopicRole.REFERENCES), 1, {"cleanup.policy": "compact"} | stamped)
    kafka.create_topic(topic_name(prefix, TopicRole.PANES), 2)
    create_topics(config)
    found = [state for state in compare_topics(config) if state.difference]
    wrong = {
        state.role: (state.difference, str(state.detail).partition(": ")[0]) for state in found
    }  # without the way out
    assert wrong == {
        TopicRole.DEAD_LETTERS: ("partitions", "has 3 partitions, must have 2"),
        TopicRole.CONTROL: (
            "policy",
            f"cleanup.policy is delete, must be compact; {STAMP}; min.compaction.lag.ms is 0, must be at least 600000",
        ),
        TopicRole.REFERENCES: ("policy", "min.compaction.lag.ms is 0, must be at least 600000"),
        TopicRole.PANES: ("policy", STAMP),
    }


def test_a_missing_source_does_not_accuse_the_others(kafka: Any, prefix: str) -> None:
    config = settings_of(kafka, prefix)
    for spec in TOPICS:
        if spec.partitions == "P":
            settings = {"min.compaction.lag.ms": "600000", "message.timestamp.type": "LogAppendTime"}
            kafka.create_topic(topic_name(prefix, spec.role), 4, settings)
    states = {state.role: state.difference for state in compare_topics(config)}
    assert states[TopicRole.PREDICTIONS] == "missing"
    assert states[TopicRole.DEAD_LETTERS] is None


def test_more_replicas_than_brokers_is_refused_in_the_brokers_words(kafka: Any, prefix: str) -> None:
    with pytest.raises(AdminError, match="only 1 broker"):
        create_topics(settings_of(kafka, prefix), replication=3, with_inputs=1)
