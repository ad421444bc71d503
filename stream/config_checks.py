"""What no single key can tell: settings that must fit each other, the reference, and the memory of a worker."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from detectors.performance import METRICS, Task
from detectors.performance.paired import COMPARED
from stream.config import Config, Model, Window
from stream.config_topics import ClickMapping, ConversionMapping, LabelMapping, MappingSettings, Performance
from stream.decode_feedback import VALUE, FeedbackPaths, feedback_layout
from stream.mapping import CONSTANT, PREDICTION, REQUEST, Layout, Mapping, MappingError
from stream.performance_plan import KINDS, PROXY_TOPICS
from stream.plan import SHARE_PREFIX, share_name
from stream.row_series import is_row_series, series_of, target_of
from stream.topics import INPUTS, TopicRole, topic_name

TOPIC_NAME_MAX = 249  # Kafka's
Finding = tuple[str, tuple[str | int, ...], str, str]
"""(code, path, what was read, what was expected)"""


def check(config: Config) -> Iterator[Finding]:
    """Contradictions inside one configuration, in no particular order."""
    yield from _topics(config)
    yield from _mapping(config)
    yield from _performance(config)
    yield from _windows(config)
    yield from _models(config)


def _topics(config: Config) -> Iterator[Finding]:
    taken = {
        topic_name(config.prefix, role): f"driftline's own {role.value}" for role in TopicRole if role not in INPUTS
    }
    names = {TopicRole.PREDICTIONS: config.topics.predictions.name}
    names |= {role: topic.name for role, topic in config.topics.feedback().items()}
    for role, name in names.items():
        if name in taken:
            expected = "expected: the topic that the model writes to, or another prefix"
            if role is not TopicRole.PREDICTIONS:
                expected = "expected: a topic of its own"
            yield "DL-C021", ("topics", role.value), f"{name} is {taken[name]} topic", expected
        taken[name] = f"the {role.value}"
    for role in config.rekeyed():
        name = config.source(role)
        if len(name) > TOPIC_NAME_MAX:
            read = f"the topic of its copies, {name}, would have a name of {len(name)} characters"
            yield (
                "DL-C014",
                ("topics", role.value, "rekey"),
                read,
                f"expected: at most {TOPIC_NAME_MAX}; a shorter prefix",
            )
        if name in taken:
            yield (
                "DL-C021",
                ("topics", role.value, "rekey"),
                f"{name} is {taken[name]} topic",
                "expected: another prefix",
            )


def mapping_of(settings: MappingSettings) -> Mapping:
    """The mapping that decoding compiles. Raises MappingError."""
    return Mapping(**settings.model_dump(exclude_none=True))


def _mapping(config: Config) -> Iterator[Finding]:
    try:
        mapping = mapping_of(config.topics.predictions.mapping)
        asked = (REQUEST,) if mapping.request_id else ()
        Layout.compile(mapping, (), (PREDICTION, *mapping.scores, "features.x", "segments.x", *asked))
    except MappingError as error:
        yield "DL-C026", ("topics", "predictions", "mapping"), str(error), "expected: dotted paths without empty keys"

    for role, topic in config.topics.feedback().items():
        try:
            feedback_layout(KINDS[role], feedback_paths(topic.mapping))
        except MappingError as error:
            yield (
                "DL-C026", ("topics", role.value, "mapping"), str(error), "expected: dotted paths without empty keys"
            )  # fmt: skip


def feedback_paths(mapping: ClickMapping | ConversionMapping | LabelMapping) -> FeedbackPaths:
    """Where things stand in the events of one topic; the value of clicks is read by nobody."""
    return FeedbackPaths(**{"value": VALUE} | mapping.model_dump())


def _constant_model(config: Config) -> Iterator[Finding]:
    """A model that all labels are of is one that is configured."""
    labels = config.topics.labels
    source = None if labels is None else labels.mapping.model
    if source is not None and source.startswith(CONSTANT) and source.removeprefix(CONSTANT) not in config.models:
        path = ("topics", "labels", "mapping", "model")
        yield "DL-C020", path, f"{source}: no such model", f"expected: a path, or one of {', '.join(config.models)}"


def _performance(config: Config) -> Iterator[Finding]:
    """Proxies and metrics have their topics, topics a model that asks for them, horizons are whole panes, metrics one task."""
    topics, asked = config.topics.feedback(), set()
    for name, model in config.models.items():
        own, path = model.performance, ("models", name, "performance")
        if own is None:
            continue
        needs = [("proxies", each, PROXY_TOPICS[each]) for each in own.proxies]
        needs += [("metrics", each, TopicRole.LABELS) for each in own.metrics]
        asked |= {role for _, _, role in needs}
        for key, each, role in needs:
            if role not in topics:
                yield (
                    "DL-C020",
                    (*path, key),
                    f"{each} is of {role.value}, and there is no topic of them",
                    f"topics.{role.value}",
                )
        segments = {"all", *(f"{key}={value}" for key, values in model.segments.items() for value in values)}
        for index, detector in enumerate(own.detectors):
            for place, segment in enumerate(detector.segments):
                if segment not in segments:
                    where = (*path, "detectors", index, "segments", place)
                    yield "DL-C020", where, f"{segment} is not followed", "expected: all, or key=value of segments"
        for place, horizon in enumerate(own.horizons):
            if horizon.ms % config.resolution.ms:
                expected = f"expected: a multiple of resolution ({config.resolution})"
                yield "DL-C022", (*path, "horizons", place), f"{horizon} is no whole number of panes", expected
        for place, age in enumerate(() if isinstance(own.provisional, str) else own.provisional):
            if age.ms % config.resolution.ms:
                expected = f"expected: a multiple of resolution ({config.resolution})"
                yield "DL-C022", (*path, "provisional", place), f"{age} is no whole number of panes", expected
        tasks = {METRICS[each].task is Task.REGRESSION for each in own.metrics}
        if len(tasks) > 1:
            yield "DL-C020", (*path, "metrics"), "some are of classes, some of numbers", "expected: those of one kind"
        binary = [each for each in own.metrics if METRICS[each].task is Task.BINARY]
        if binary and len(own.classes) > 2:
            yield (
                "DL-C020",
                (*path, "metrics"),
                f"{binary[0]} is of two classes, there are {len(own.classes)}",
                "expected: two classes",
            )
        known = config.topics.predictions.mapping.scores
        for each, score in own.class_scores.items():
            if score not in known:
                expected = f"expected: one of {', '.join(known)}"
                yield "DL-C020", (*path, "class_scores", each), f"no score is called {score}", expected
        yield from _disparity(model, own, path)
        yield from _challengers(config, name, own, path)
    yield from _constant_model(config)
    for role in sorted(set(topics) - asked):
        read = f"no model asks for anything of {role.value}"
        yield "DL-C020", ("topics", role.value), read, "expected: models.NAME.performance, or no such topic"


def _disparity(model: Model, own: Performance, path: tuple[str, ...]) -> Iterator[Finding]:
    """Reference groups are followed values of segment keys, and labels are of two classes."""
    for key, value in own.disparity.items():
        where = (*path, "disparity", key)
        if key not in model.segments:
            known = ", ".join(sorted(model.segments)) or "none"
            yield "DL-C020", where, f"{key} is no segment key of the model", f"expected: one of segments: {known}"
        elif value not in model.segments[key]:
            expected = f"expected: one of {', '.join(model.segments[key])}"
            yield "DL-C020", where, f"{value} is no value of {key} that is followed", expected
    classes = own.metrics and METRICS[own.metrics[0]].task is not Task.REGRESSION
    if own.disparity and not (classes and len(own.classes) == 2):
        read = "rates of groups need labels of two classes"
        yield "DL-C020", (*path, "disparity"), read, "expected: metrics of two classes, or no disparity"


def _challengers(config: Config, name: str, own: Performance, path: tuple[str, ...]) -> Iterator[Finding]:
    """Other models, whose labels mean the same; requests have an id; metrics that can be compared in pairs."""
    if own.challengers and config.topics.predictions.mapping.request_id is None:
        expected = "expected: topics.predictions.mapping.request_id, and topics that are keyed by it"
        yield "DL-C020", (*path, "challengers"), "predictions of one request are not told", expected
    if own.challengers and not any(each in COMPARED for each in own.metrics):
        expected = f"expected: metrics with one of {', '.join(COMPARED)}"
        yield "DL-C020", (*path, "challengers"), "no metric that can be compared in pairs is asked for", expected
    if own.challengers and labels_mean(own) and len(own.classes) > 2:
        read = f"pairs are of two classes or of numbers, there are {len(own.classes)} classes"
        yield "DL-C020", (*path, "challengers"), read, "expected: two classes, or no challengers"
    for place, other in enumerate(own.challengers):
        where: tuple[str | int, ...] = (*path, "challengers", place)
        their: Performance | None = None
        if other in config.models:
            their = config.models[other].performance
        if other == name or other not in config.models or own.challengers.count(other) > 1:
            yield "DL-C020", where, f"{other} is no other model, once", f"expected: one of {', '.join(config.models)}"
        elif their is None or not their.metrics:
            yield "DL-C020", where, f"{other} has no labels", f"expected: models.{other}.performance.metrics"
        elif own.metrics and labels_mean(their) != labels_mean(own):
            read = f"labels of {other} mean something else than those of {name}"
            yield "DL-C020", where, read, "expected: the same classes and positive, or numbers in both"


def labels_mean(own: Performance) -> tuple[str, ...]:
    """Classes, the positive one first; () = numbers, or none asked for."""
    if not own.metrics or METRICS[own.metrics[0]].task is Task.REGRESSION:
        return ()
    return (own.positive or own.classes[-1], *own.classes)


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
        yield from _arrays(config, model, path)
        yield from without_value(model, path, _numbers(config, model), _texts(model))
        yield from names_taken(model, path, _named(config, model))
        for key in model.segments:
            if "=" in key:  # key=value names a segment, a=b=c would name two
                yield (
                    "DL-C014",
                    (*path, "segments", key),
                    f"{key} has a =",
                    "expected: a key without; values may have one",
                )
        for index, detector in enumerate(model.detectors):
            asked = detector.rows
            if asked is not None and model.reference.first is not None:
                read = f"{asked} needs rows of the reference, and one that is learnt keeps none"
                yield "DL-C020", (*path, "detectors", index), read, "expected: reference.file"
            for place, target in enumerate(detector.targets):
                if target in unwatched:
                    where: tuple[str | int, ...] = (*path, "detectors", index, "targets", place)
                    yield (
                        "DL-C020",
                        where,
                        f"{target} is not watched",
                        f"expected: targets.{target} without watch: false",
                    )
                elif asked is not None and (target not in model.targets or model.targets[target].dimension is None):
                    where, read = (*path, "detectors", index, "targets", place), f"{target} is not said to be an array"
                    yield "DL-C020", where, read, f"expected: targets.{target}.dimension, or no targets"


def _named(config: Config, model: Model) -> set[str]:
    """Watched targets that the configuration names."""
    unwatched = {name for name, each in model.targets.items() if not each.watch}
    outputs = {PREDICTION, *config.topics.predictions.mapping.scores, *map(share_name, model.segments)}
    return {*model.targets, *outputs} - unwatched


def names_taken(model: Model, path: tuple[str, ...], names: Collection[str]) -> Iterator[Finding]:
    """Detectors whose alerts would have the name of a watched target: its alerts and theirs would be one incident."""
    for index, detector in enumerate(model.detectors):
        asked = detector.read()
        if is_row_series(asked) and target_of(asked) in names:
            read = f"a target is called {target_of(asked)}, as alerts about {series_of(asked)} are"
            expected = "expected: another name of that feature, watch: false for it, or no such detector"
            yield "DL-C020", (*path, "detectors", index), read, expected


def _numbers(config: Config, model: Model) -> set[str]:
    """Targets that the configuration says are numbers, or arrays, whose norm is one."""
    told = {
        name
        for name, each in model.targets.items()
        if each.dimension is not None or each.kind == "numeric" or each.range is not None
    }
    return told | {*config.topics.predictions.mapping.scores}


def _texts(model: Model) -> set[str]:
    """Targets that the configuration says are categories."""
    return {name for name, each in model.targets.items() if each.kind == "categorical"}


def without_value(
    model: Model, path: tuple[str, ...], numbers: Collection[str], categories: Collection[str]
) -> Iterator[Finding]:
    """Detectors about categories whose targets are among `numbers`, and the other way round: they would never say anything."""
    for index, detector in enumerate(model.detectors):
        for place, target in enumerate(detector.targets):
            where: tuple[str | int, ...] = (*path, "detectors", index, "targets", place)
            if detector.of_categories is not None and target in numbers:
                own = model.targets.get(target)
                what = "numbers" if own is None or own.dimension is None else "arrays"
                read = f"{detector.of_categories} is of categories, and the values of {target} are {what}"
                yield "DL-C020", where, read, "expected: a categorical target"
            if detector.of_numbers is not None and target in categories:
                read = f"{detector.of_numbers} is of numbers, and the values of {target} are categories"
                yield "DL-C020", where, read, "expected: a numeric target"


def _arrays(config: Config, model: Model, path: tuple[str, ...]) -> Iterator[Finding]:
    """Arrays are features."""
    outputs = {PREDICTION, *config.topics.predictions.mapping.scores}
    for name, target in model.targets.items():
        if target.dimension is not None and (name in outputs or name.startswith(SHARE_PREFIX)):
            yield "DL-C020", (*path, "targets", name, "dimension"), f"{name} is no feature", "expected: no dimension"
