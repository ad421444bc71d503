"""What a topic's events look like: targets and their kinds, proposed from a sample. Pure.

Used where a model learns from the stream (`reference: {first: N}`) and the configuration names no targets. The rules are
few and stated, because a wrong guess is watched for months: a number is numeric, a text or a bool is categorical, a text
that hardly repeats is free text and not watched, a decision with few values is categorical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from detectors.binning import Kind
from stream import mapping as event_mapping
from stream.mapping import Source, split
from stream.plan import Role
from stream.planning import DeclaredTarget

SAMPLE_EVENTS = 2_000  # per model; a feature that occurs in 1 % of the events is seen 20 times
CLASSES_MAX = 20  # a decision with more distinct whole numbers is a value
REPEATED_MIN = 0.5  # share of a text feature's values that were seen before; less is free text
TEXTS_MIN = 50  # fewer texts say nothing about repetition
VALUES_MAX = 1_000  # distinct values that are remembered per target


@dataclass
class _Seen:
    """What was seen in one place of the events."""

    role: Role
    kinds: Counter[str] = field(default_factory=Counter)
    values: set[Any] = field(default_factory=set)

    def add(self, value: Any) -> None:
        if value is None or isinstance(value, dict | list):
            return
        kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        whole = kind == "number" and float(value).is_integer()
        self.kinds[kind] += 1
        self.kinds["whole"] += whole
        if len(self.values) < VALUES_MAX:
            self.values.add(value)

    def kind(self) -> Kind | None:
        """None = not to be watched."""
        numbers, texts, bools = (self.kinds[kind] for kind in ("number", "text", "bool"))
        total = numbers + texts + bools
        if not total:
            return None
        if self.role is Role.SCORE:
            return Kind.NUMERIC if numbers else None
        if texts > numbers:
            repeated = 1 - len(self.values) / total
            return None if texts >= TEXTS_MIN and repeated < REPEATED_MIN else Kind.CATEGORICAL
        if bools > numbers:
            return Kind.CATEGORICAL
        classes = self.role is Role.PREDICTION and self.kinds["whole"] == numbers and len(self.values) <= CLASSES_MAX
        return Kind.CATEGORICAL if classes else Kind.NUMERIC


@dataclass
class Discovery:
    """Sees events one by one; `targets` says what it made of them."""

    mapping: event_mapping.Mapping
    models: tuple[str, ...]
    events: Counter[str] = field(default_factory=Counter)
    seen: dict[str, dict[str, _Seen]] = field(default_factory=dict)

    def add(self, event: Any) -> None:
        """One decoded event; what is no object, or of no configured model, is passed over."""
        if not isinstance(event, dict):
            return
        model = _text(event, Source.of(self.mapping.model))
        if model not in self.models or self.events[model] >= SAMPLE_EVENTS:
            return
        self.events[model] += 1
        seen = self.seen.setdefault(model, {})
        features = _at(event, split(self.mapping.features))
        for name, value in features.items() if isinstance(features, dict) else ():
            seen.setdefault(name, _Seen(Role.FEATURE)).add(value)
        outputs = {event_mapping.PREDICTION: (Role.PREDICTION, self.mapping.prediction)}
        outputs |= {name: (Role.SCORE, path) for name, path in self.mapping.scores.items()}
        for name, (role, path) in outputs.items():
            if name in seen and seen[name].role is not role:
                continue  # a feature of that name came first: names are unique within a model
            seen.setdefault(name, _Seen(role)).add(_at(event, split(path)))

    @property
    def complete(self) -> bool:
        return all(self.events[model] >= SAMPLE_EVENTS for model in self.models)

    def targets(self, model: str) -> tuple[DeclaredTarget, ...]:
        """Proposed targets, by role and name."""
        found = []
        for name, seen in self.seen.get(model, {}).items():
            kind = seen.kind()
            if kind is not None:
                found.append(DeclaredTarget(name, seen.role, kind))
        return tuple(sorted(found, key=lambda target: (list(Role).index(target.role), target.name)))


def discover(
    events: Iterable[bytes | Mapping[str, Any]], mapping: event_mapping.Mapping, models: Iterable[str]
) -> dict[str, tuple[DeclaredTarget, ...]]:
    """Targets of every model, from the first events (JSON bytes or decoded). Stops once it has seen enough of each."""
    discovery = Discovery(mapping, tuple(models))
    for event in events:
        discovery.add(_decoded(event))
        if discovery.complete:
            break
    return {model: discovery.targets(model) for model in discovery.models}


def _decoded(event: bytes | Mapping[str, Any]) -> Any:
    if not isinstance(event, bytes):
        return event
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:
        return None


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(event: dict[str, Any], source: Source) -> str:
    return source.constant if source.constant is not None else str(_at(event, source.keys))
