"""Where references live: profiles in the references topic, which one is active in the control topic, with its history.

Truth is the control topic (contracts.md, Configuration while running): `ensure_references` builds and promotes a configured
file only where a model has no active reference yet, else it obeys and warns when the file would give another one.

    control key   reference/MODEL    JSON {reference, revision, state: active, history: [id, …]}: what was promoted, by people
                                     or from a configured file
                  learnt/MODEL       the same with state learning or pinned: what the monitor learnt. It is in force while nothing
                                     was promoted; repeated after a restart it can therefore never undo a promotion, not even
                                     in a compacted topic, which keeps the last record of a key and not the highest revision
                  owner/workers      JSON {cluster, counting}: who may work on these topics, owner_record.py
                  targets/MODEL      JSON {revision, targets: [{name, role, kind}, …]}: what a learning model's events showed
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from detectors.binning import Kind
from detectors.reference import BadReference, ReferenceProfile, slim
from stream.config_checks import mapping_of
from stream.config_detectors import targets_with_limits
from stream.connection import kafka_python_settings
from stream.container import ContainerError
from stream.discover import Discovery
from stream.left_out import not_watched
from stream.plan import Role
from stream.planning import DeclaredTarget, declared_targets
from stream.preflight import build_from_file
from stream.reference_limits import without_windows
from stream.reference_records import ReferenceLog, reference_outputs
from stream.row_file import row_file
from stream.topics import TopicRole

if TYPE_CHECKING:
    from stream.config import Config

log = logging.getLogger(__name__)

HISTORY_MAX = 50
READ_STALL_S = 60.0
SAMPLE_EVENTS_MIN = 500  # of every learning model; fewer after SAMPLE_PATIENCE_S
SAMPLE_PATIENCE_S = 5.0
SAMPLE_RECORDS_MAX = 20_000
REFERENCE_KEY = "reference/"
LEARNT_KEY = "learnt/"
TARGETS_KEY = "targets/"
OWNER_KEY = "owner/workers"
ACTIVE = "active"  # the state of what was promoted; learnt ones are learning or pinned
PROMOTIONS_MAX = 5  # tries, where others promote at the same time


FirstValues = Callable[[], Iterable[Sequence[bytes]]]


class ReferencesError(Exception):
    """A reference that is not there, is damaged, or cannot be activated; the text names model and reference."""


@dataclass(frozen=True, slots=True)
class ActiveReference:
    """The control record of one model. `history`: ids that were active before, the latest last."""

    model: str
    reference: str
    revision: int
    state: str = ACTIVE
    history: tuple[str, ...] = ()

    def encode(self) -> tuple[bytes, bytes]:
        """Key and value of the control record."""
        body = {
            "reference": self.reference,
            "revision": self.revision,
            "state": self.state,
            "history": list(self.history),
        }
        kind = REFERENCE_KEY if self.state == ACTIVE else LEARNT_KEY
        return f"{kind}{self.model}".encode(), orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class Known:
    """What is to be counted against: active profiles by model (None = to be learnt), discovered targets, all profiles.

    Profiles are `slim`: nobody writes them again.
    """

    active: dict[str, ReferenceProfile | None]
    discovered: dict[str, tuple[DeclaredTarget, ...]]
    profiles: dict[str, ReferenceProfile]


@dataclass
class ControlLog:
    """The control topic as read so far. Records of other kinds are passed over, and those of a lower revision than their key's."""

    promoted: dict[str, ActiveReference] = field(default_factory=dict)
    learnt: dict[str, ActiveReference] = field(default_factory=dict)
    targets: dict[str, tuple[DeclaredTarget, ...]] = field(default_factory=dict)
    contested: set[str] = field(default_factory=set)
    owner: bytes | None = None  # owner_record.py reads it

    @property
    def active(self) -> dict[str, ActiveReference]:
        """What is in force for each model: promoted, else learnt."""
        return self.learnt | self.promoted

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Take in one record, in log order. Raises ReferencesError for a record that cannot be read."""
        name = (key or b"").decode("utf-8", "replace")
        kind, _, model = name.partition("/")
        try:
            if kind + "/" in {REFERENCE_KEY, LEARNT_KEY}:
                known = self.promoted if kind + "/" == REFERENCE_KEY else self.learnt
                if value is None:
                    known.pop(model, None)
                    return
                body = orjson.loads(value)
                history = tuple(str(item) for item in body["history"])
                record = ActiveReference(model, body["reference"], body["revision"], body["state"], history)
                if model not in known or record.revision >= known[model].revision:
                    known[model] = record
            elif kind + "/" == TARGETS_KEY and value is not None:
                found = tuple(
                    DeclaredTarget(t["name"], Role(t["role"]), Kind(t["kind"])) for t in orjson.loads(value)["targets"]
                )
                if self.targets.setdefault(model, found) != found:
                    self.contested.add(model)  # two workers looked at the same time: the first record counts
            elif name == OWNER_KEY:
                self.owner = value
        except (KeyError, TypeError, ValueError) as error:
            raise ReferencesError(f"control record {name!r} cannot be read: {error!r}") from error


def promote(config: Config, model: str, reference_id: str) -> ActiveReference:
    """Make a stored reference the active one. Running workers follow at their next unopened pane edge."""
    _require_model(config, model)
    stored = read_references(config)
    profile = _profile(stored, reference_id)
    if profile is None:
        known = ", ".join(sorted(stored.ids())) or "none"
        raise ReferencesError(f"models.{model}: reference {reference_id} is not stored; stored: {known}")
    if profile.model != model:
        raise ReferencesError(f"models.{model}: reference {reference_id} is of model {profile.model}")
    return _activate(config, model, partial(_promoted, model=model, reference_id=reference_id))


def rollback(config: Config, model: str) -> ActiveReference:
    """Make the reference that was active before the active one again."""
    _require_model(config, model)
    return _activate(config, model, partial(_rolled_back, model=model))


def store(config: Config, profile: ReferenceProfile) -> None:
    """Write a profile; equal content is equal bytes under equal keys, so writing it again changes nothing."""
    _write(config, [(TopicRole.REFERENCES, output.key, output.value) for output in reference_outputs(profile)])


def active_references(config: Config) -> dict[str, ActiveReference]:
    """The control records by model."""
    return read_control(config).active


def stored_references(config: Config) -> dict[str, ReferenceProfile]:
    """Every stored profile by id. Raises ReferencesError for a damaged one."""
    stored = read_references(config)
    return {name: profile for name in stored.ids() if (profile := _profile(stored, name)) is not None}


def ensure_references(config: Config, first_values: FirstValues) -> Known:
    """What every model is counted against, from the topics; what is missing there is built from the file and promoted.

    A model that learns and names no targets waits for events, to see what they look like. `first_values()` gives the values
    of the predictions topic from its beginning, in batches; an empty batch each time that nothing has come for a while.
    (kafka-python, used here otherwise, does not read every compression.) Raises ReferencesError, TableError, BadReference,
    KafkaUnreachableError.
    """
    control, stored = read_control(config), read_references(config)
    active: dict[str, ReferenceProfile | None] = {}
    for model, settings in config.models.items():
        record = control.active.get(model)
        if record is not None:
            profile = _profile(stored, record.reference)
            if profile is None:
                raise ReferencesError(f"models.{model}: the active reference {record.reference} is not stored")
            active[model] = for_use(config, profile)  # one whole profile at a time
            _warn_of_another(config, model, profile)
        elif settings.reference.file is not None:
            profile = build_from_file(config, model)
            store(config, profile)
            _activate(config, model, partial(_promoted, model=model, reference_id=profile.id))
            active[model] = for_use(config, profile)
        else:
            active[model] = None
    learning = [model for model, profile in active.items() if profile is None]
    unknown = [model for model in learning if model not in control.targets and not declared_targets(config, model)]
    if unknown:
        control = _discover(config, unknown, first_values)
    profiles = {profile.id: profile for profile in active.values() if profile is not None}
    return Known(active, {model: control.targets.get(model, ()) for model in learning}, profiles)


def for_use(config: Config, profile: ReferenceProfile) -> ReferenceProfile:
    """The profile `slim`, with the windows of those targets alone on which limits are to be made of them."""
    detectors = config.models[profile.model].detectors if profile.model in config.models else ()
    wanted = targets_with_limits(detectors, [target.name for target in profile.targets])
    lacking = sorted(target.name for target in profile.targets if target.name in wanted and target.kept is None)
    if lacking and profile.complete:
        log.warning(
            "models.%s: reference %s was stored before references kept their windows: limits on %s that it is to make page never; "
            "build it again (driftline reference build), or learn it anew", profile.model, profile.id, ", ".join(lacking),
        )  # fmt: skip
    for sentence in not_watched(config, profile):
        log.warning("models.%s: %s", profile.model, sentence)
    return slim(without_windows(profile, wanted), row_file().put)


def _warn_of_another(config: Config, model: str, active: ReferenceProfile) -> None:
    """The file is only looked at where it says what it is: a build takes seconds, the name nothing."""
    file = config.models[model].reference.file
    made_of = active.origin.get("file")
    if file is not None and made_of not in (None, file.name):
        log.warning(
            "models.%s: the active reference was made of %s, the configuration names %s; to switch: driftline reference"
            " build, then promote", model, made_of, file.name,
        )  # fmt: skip


def _promoted(before: ActiveReference | None, model: str, reference_id: str) -> ActiveReference:
    if before is None:
        return ActiveReference(model, reference_id, 1)
    if before.reference == reference_id:
        return before
    history = (*before.history, before.reference)[-HISTORY_MAX:]
    return ActiveReference(model, reference_id, before.revision + 1, ACTIVE, history)


def _rolled_back(before: ActiveReference | None, model: str) -> ActiveReference:
    if before is None or not before.history:
        raise ReferencesError(f"models.{model}: no reference was active before")
    return ActiveReference(model, before.history[-1], before.revision + 1, ACTIVE, before.history[:-1])


def _activate(config: Config, model: str, make: Callable[[ActiveReference | None], ActiveReference]) -> ActiveReference:
    """Write what `make` makes of the record in force, until it is in force: somebody else may write at the same time.

    The last record of a key is then the one with the highest revision, so that compaction keeps the right one.
    """
    before = read_control(config).active.get(model)
    record = make(before)
    for _ in range(PROMOTIONS_MAX):
        if record == before:
            return record
        _write(config, [(TopicRole.CONTROL, *record.encode())])
        before = read_control(config).active.get(model)
        if before is not None and before != record and before.revision >= record.revision:
            record = replace(record, revision=before.revision + 1)
    raise ReferencesError(f"models.{model}: others promote references at the same time; see driftline reference list")


def _discover(config: Config, models: Sequence[str], first_values: FirstValues) -> ControlLog:
    """Look at the first events of the topic and write down what they are made of, once for all workers and restarts."""
    discovery = Discovery(mapping_of(config.topics.predictions.mapping), tuple(models))
    first_seen: float | None = None
    for values in first_values():
        for value in values:
            try:
                discovery.add(orjson.loads(value))
            except orjson.JSONDecodeError:
                continue
        if sum(discovery.events.values()) and first_seen is None:
            first_seen = time.monotonic()
        enough = all(discovery.events[model] >= SAMPLE_EVENTS_MIN for model in models)
        if enough or (first_seen is not None and time.monotonic() - first_seen > SAMPLE_PATIENCE_S):
            break
    found = {model: discovery.targets(model) for model in models}
    records = [(TopicRole.CONTROL, *_targets_record(model, targets)) for model, targets in found.items() if targets]
    _write(config, records)
    control = read_control(config)
    # compaction keeps the last record of a key: where another worker wrote after the first one, the first is said again
    _write(
        config, [(TopicRole.CONTROL, *_targets_record(model, control.targets[model])) for model in control.contested]
    )
    return control


def _targets_record(model: str, targets: Sequence[DeclaredTarget]) -> tuple[bytes, bytes]:
    listed = [{"name": t.name, "role": t.role.value, "kind": t.kind.value} for t in targets]
    value = orjson.dumps({"revision": 1, "targets": listed}, option=orjson.OPT_SORT_KEYS)
    return f"{TARGETS_KEY}{model}".encode(), value


def read_control(config: Config) -> ControlLog:
    """The whole control topic."""
    control = ControlLog()
    for key, value in _whole(config, TopicRole.CONTROL):
        control.add(key, value)
    return control


def read_references(config: Config) -> ReferenceLog:
    """The whole references topic."""
    stored = ReferenceLog()
    for key, value in _whole(config, TopicRole.REFERENCES):
        stored.add(key, value)
    return stored


def _profile(stored: ReferenceLog, reference_id: str) -> ReferenceProfile | None:
    try:
        return stored.get(reference_id)
    except (ContainerError, BadReference) as error:
        raise ReferencesError(f"reference {reference_id} is damaged: {error}") from error


def _require_model(config: Config, model: str) -> None:
    if model not in config.models:
        raise ReferencesError(f"models.{model}: not in the configuration; known: {', '.join(config.models)}")


def _whole(config: Config, role: TopicRole) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Every record of a topic's only partition, from its beginning to its end as of now."""
    from kafka import KafkaConsumer, TopicPartition

    place = TopicPartition(config.topic(role), 0)
    settings: Mapping[str, Any] = kafka_python_settings(config.kafka)
    with closing(KafkaConsumer(**settings, enable_auto_commit=False, auto_offset_reset="earliest")) as consumer:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        consumer.seek(place, consumer.beginning_offsets([place])[place])
        deadline = time.monotonic() + READ_STALL_S
        while consumer.position(place) < end:
            for record in consumer.poll(timeout_ms=500).get(place, ()):
                deadline = time.monotonic() + READ_STALL_S
                yield record.key, record.value
            if time.monotonic() > deadline:
                raise ReferencesError(
                    f"{place.topic}: nothing for {READ_STALL_S:.0f} s at {consumer.position(place)} of {end}"
                )


def write_control(config: Config, key: str, value: bytes) -> None:
    """One record of the control topic."""
    _write(config, [(TopicRole.CONTROL, key.encode(), value)])


def _write(config: Config, records: Sequence[tuple[TopicRole, bytes | None, bytes | None]]) -> None:
    """Write and wait for every acknowledgement, in order."""
    from kafka import KafkaProducer

    if not records:
        return
    with closing(
        KafkaProducer(**kafka_python_settings(config.kafka), acks="all", max_request_size=1 << 20)
    ) as producer:
        for role, key, value in records:
            producer.send(config.topic(role), key=key, value=value, partition=0).get(timeout=READ_STALL_S)
