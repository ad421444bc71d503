"""What no single key can tell: settings that must fit each other, the reference, and the memory of a worker."""

from __future__ import annotations

from collections.abc import Iterator

from stream.config import Config, MappingSettings, Window
from stream.config_detectors import ROWS
from stream.mapping import PREDICTION, Layout, Mapping, MappingError
from stream.topics import TopicRole, topic_name

Finding = tuple[str, tuple[str | int, ...], str, str]
"""(code, path, what was read, what was expected)"""


def check(config: Config) -> Iterator[Finding]:
    """Contradictions inside one configuration, in no particular order."""
    yield from _topics(config)
    yield from _mapping(config)
    yield from _windows(config)
    yield from _models(config)


def _topics(config: Config) -> Iterator[Finding]:
    own = {topic_name(config.prefix, role): role for role in TopicRole if role is not TopicRole.PREDICTIONS}
    name = config.topics.predictions.name
    if name in own:
        expected = "expected: the topic that the model writes to, or another prefix"
        yield "DL-C021", ("topics", "predictions"), f"{name} is driftline's own {own[name].value} topic", expected


def mapping_of(settings: MappingSettings) -> Mapping:
    """The mapping that decoding compiles. Raises MappingError."""
    return Mapping(**settings.model_dump())


def _mapping(config: Config) -> Iterator[Finding]:
    try:
        mapping = mapping_of(config.topics.predictions.mapping)
        Layout.compile(mapping, (), (PREDICTION, *mapping.scores, "features.x", "segments.x"))
    except MappingError as error:
        yield "DL-C026", ("topics", "predictions", "mapping"), str(error), "expected: dotted paths without empty keys"


def _windows(config: Config) -> Iterator[Finding]:
    yield from _window(config, config.defaults.window, ("defaults", "window"))
    for name, model in config.models.items():
        if model.window is not None:
            yield from _window(config, model.window, ("models", name, "window"))


def _window(config: Config, window: Window, path: tuple[str, ...]) -> Iterator[Finding]:
    for key in ("every", "max_duration"):
        length = getattr(window, key)
        if length is not None and length.ms % config.resolution.ms:
            expected = f"expected: a multiple of resolution ({config.resolution})"
            yield "DL-C022", (*path, key), f"{length} is no whole number of panes", expected


def _models(config: Config) -> Iterator[Finding]:
    for name, model in config.models.items():
        path = ("models", name)
        unwatched = {target for target, settings in model.targets.items() if not settings.watch}
        for index, detector in enumerate(model.detectors):
            asked = detector.series or detector.type
            if asked in ROWS and model.reference.first is not None:
                read = f"{asked} needs rows of the reference, and one that is learnt keeps none"
                yield "DL-C020", (*path, "detectors", index), read, "expected: reference.file"
            for place, target in enumerate(detector.targets):
                if target in unwatched:
                    where = (*path, "detectors", index, "targets", place)
                    yield (
                        "DL-C020",
                        where,
                        f"{target} is not watched",
                        f"expected: targets.{target} without watch: false",
                    )
