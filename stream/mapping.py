"""Any JSON shape to ours: where an event's envelope and its values stand, and the tables that both decoding tiers read.

A mapping's paths are dotted keys ("meta.id"); "=text" is a constant. Inside, a path is a tuple of keys, so a feature called
"a.b" (one literal key) and a nested {"a": {"b": ...}} are never confused: a feature's path is always its prefix's keys
plus its name as one key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Mapping as ABCMapping
from dataclasses import dataclass, field
from functools import lru_cache

UNITS = ("auto", "rfc3339", "s", "ms", "us", "ns")
UNIT_EXPONENT = {"s": 3, "ms": 0, "us": -3, "ns": -6}  # value x 10^exponent = milliseconds
RECORD_TIME = "$record"
CONSTANT = "="
FEATURES = "features"
SEGMENTS = "segments"
PREDICTION = "prediction"
OUTCOME = "$outcome"
REQUEST = "$request_id"

Keys = tuple[str, ...]


class MappingError(ValueError):
    """A mapping or a path that cannot be compiled; the message names it."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where things stand in a topic's events. The defaults are the native event.

    timestamp_unit   text is always RFC 3339; a number needs one of s, ms, us, ns. "auto" and "rfc3339" refuse numbers
                     (with a guess of the unit), because a wrong guess would put a whole topic into the wrong year.
    timestamp        "$record" takes Kafka's record time instead
    features, segments   path of the object that holds them; "" = the event itself
    strict_duplicate_keys   refuse an event in which a key on the way to its id, model, version or time stands twice
    unknown_models       "dlq" refuses events of models that the layout does not name; "count" keeps them, counted
    outcome              of feedback: what became of a prediction, a scalar; "" = there is none
    request_id           what predictions of several models about one thing have in common; "" = there is none
    model_optional       of feedback: an event without a model is of none that the layout names
    """

    prediction_id: str = "prediction_id"
    model: str = "model"
    version: str = "version"
    timestamp: str = "timestamp"
    timestamp_unit: str = "auto"
    features: str = FEATURES
    prediction: str = PREDICTION
    scores: dict[str, str] = field(default_factory=lambda: {"score": "score"}, hash=False)
    segments: str = SEGMENTS
    strict_duplicate_keys: bool = False
    unknown_models: str = "count"
    outcome: str = ""
    request_id: str = ""
    model_optional: bool = False

    def __post_init__(self) -> None:
        if self.timestamp_unit not in UNITS:
            raise MappingError(f"timestamp_unit {self.timestamp_unit!r} is none of {', '.join(UNITS)}")
        for name in ("prediction_id", "timestamp"):
            if getattr(self, name).startswith(CONSTANT):
                raise MappingError(f"{name} cannot be a constant")
        for name in ("features", "segments", "prediction", "outcome", "request_id"):
            if getattr(self, name).startswith((CONSTANT, "$")):
                raise MappingError(f"{name} must be a path")
        for name, path in self.scores.items():
            if name in {FEATURES, SEGMENTS, PREDICTION} or not path or path.startswith((CONSTANT, "$")):
                raise MappingError(f"score {name!r} needs a name and a path of its own")


def split(path: str) -> Keys:
    """Keys of a dotted path; "" = no keys, the event itself."""
    keys = tuple(path.split(".")) if path else ()
    if "" in keys:
        raise MappingError(f"path {path!r} has an empty key")
    return keys


@lru_cache(maxsize=1024)
def pointer(keys: Keys) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one field of the envelope comes from: keys, or a constant text; neither = the record's time."""

    keys: Keys = ()
    constant: str | None = None

    @classmethod
    def of(cls, path: str) -> Source:
        if path.startswith(CONSTANT):
            return cls(constant=path[1:])
        if path == RECORD_TIME:
            return cls()
        if not path:
            raise MappingError("an envelope field needs a path")
        return cls(keys=split(path))


def cell_keys(mapping: Mapping, path: str) -> Keys:
    """Keys of a wanted cell. `path` is "features.<name>", "segments.<key>", "prediction", OUTCOME, REQUEST or a score's name; the name
    after the first dot is one literal key. Raises MappingError for anything else.
    """
    if path == PREDICTION:
        return split(mapping.prediction)
    if path == OUTCOME and mapping.outcome:
        return split(mapping.outcome)
    if path == REQUEST and mapping.request_id:
        return split(mapping.request_id)
    if path in mapping.scores:
        return split(mapping.scores[path])
    role, dot, name = path.partition(".")
    if dot and name and role == FEATURES:
        return (*split(mapping.features), name)
    if dot and name and role == SEGMENTS:
        return (*split(mapping.segments), name)
    known = ", ".join(mapping.scores)
    raise MappingError(f"path {path!r} is no feature, segment, prediction or score (scores known: {known})")


@dataclass(frozen=True, slots=True)
class ArrayColumn:
    """A column whose values are arrays of numbers: how long those of each model are, in Layout's order; 0 = no arrays."""

    column: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A mapping compiled for the cells that are wanted. Column i of Columns.cell is `paths[i]`.

    keys             keys of each column, same order
    output           per column: True for the prediction, the outcome and the scores, whose bad values refuse the event
    score            per column: True for the scores, which are numbers
    coerce           per column: True where a text that is a JSON number counts as that number
    features         keys of the container of features; `features_of[i]`: model i's events must have it
    arrays           the columns that hold arrays of numbers, ascending
    """

    mapping: Mapping
    models: tuple[str, ...]
    paths: tuple[str, ...]
    keys: tuple[Keys, ...]
    output: tuple[bool, ...]
    score: tuple[bool, ...]
    coerce: tuple[bool, ...]
    prediction_id: Source
    model: Source
    version: Source
    timestamp: Source
    features: Keys
    features_of: tuple[bool, ...]
    arrays: tuple[ArrayColumn, ...] = ()

    @classmethod
    def compile(
        cls,
        mapping: Mapping,
        models: Sequence[str],
        paths: Sequence[str],
        *,
        with_features: Collection[str] | None = None,
        coerce: Collection[str] = (),
        arrays: ABCMapping[str, ABCMapping[str, int]] | None = None,
    ) -> Layout:
        """Resolve every path once. `with_features`: models whose events must carry the features object (None = all,
        where any feature is wanted). `coerce`: paths whose texts may be numbers. `arrays`: path -> model -> how many numbers
        its arrays have. Raises MappingError.
        """
        for what, names in (("model", models), ("path", paths)):
            if len(set(names)) != len(names):
                raise MappingError(f"a {what} is named twice")
        wants_features = any(path.startswith(FEATURES + ".") for path in paths) and bool(mapping.features)
        return cls(
            mapping=mapping,
            models=tuple(models),
            paths=tuple(paths),
            keys=tuple(cell_keys(mapping, path) for path in paths),
            output=tuple(path in {PREDICTION, OUTCOME} or path in mapping.scores for path in paths),
            score=tuple(path in mapping.scores for path in paths),
            coerce=tuple(path in coerce for path in paths),
            prediction_id=Source.of(mapping.prediction_id),
            model=Source.of(mapping.model),
            version=Source.of(mapping.version),
            timestamp=Source.of(mapping.timestamp),
            features=split(mapping.features),
            features_of=tuple(wants_features and (with_features is None or name in with_features) for name in models),
            arrays=tuple(
                ArrayColumn(column, tuple((arrays or {})[path].get(name, 0) for name in models))
                for column, path in enumerate(paths)
                if path in (arrays or {})
            ),
        )

    @property
    def envelope_keys(self) -> frozenset[str]:
        """First keys of everything that is no feature: where the event itself holds its features, it holds these, too."""
        sources = (self.prediction_id, self.model, self.version, self.timestamp)
        mapped = (
            self.mapping.prediction,
            self.mapping.request_id,
            self.mapping.segments,
            *self.mapping.scores.values(),
        )
        return frozenset(keys[0] for keys in (*(source.keys for source in sources), *map(split, mapped)) if keys)


NATIVE = Mapping()
