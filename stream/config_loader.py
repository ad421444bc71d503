"""From the text of monitor.yaml to a Config: every value keeps its place, and all problems are reported at once.

YAML 1.2 (`no` is text, 1e-3 a number), no tags, no merge keys, bounded size, depth and aliases: the parser's events are
counted before anything is built, so that a hostile file costs neither memory nor recursion.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from stream.config import Config
from stream.config_errors import ConfigError, Problem, Severity, nearest, unknown_name
from stream.quantities import Secret

FILE_BYTES_MAX = 1_000_000  # 2,000 targets with every setting are 300 kB
DEPTH_MAX = 32
ALIASES_MAX = 100
NODES_MAX = 200_000  # after aliases are followed

Key = tuple[str | int, ...]
_TAGS = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column of a key and of its value, counted from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration, where each of its keys stands, and what deserves a warning."""

    config: Config
    file: str
    text: str
    places: dict[Key, Place]
    warnings: tuple[Problem, ...] = ()

    @property
    def file_hash(self) -> str:
        """sha256 of the text as it stands: display only (contracts.md, the file hash)."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass
class _Reader:
    """Plain values from the nodes of one document."""

    file: str
    yaml: Any
    places: dict[Key, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def problem(self, code: str, path: Key, read: str, expected: str, mark: Any) -> None:
        self.problems.append(Problem(code, dotted(path), read, expected, self.file, mark.line + 1, mark.column + 1))

    def value(self, node: Node, path: Key) -> Any:
        """The plain value of `node`; what cannot be read becomes None and a problem."""
        self.nodes += 1
        if self.nodes > NODES_MAX or len(path) > DEPTH_MAX:
            read = (
                f"aliases make more than {NODES_MAX} values"
                if self.nodes > NODES_MAX
                else f"deeper than {DEPTH_MAX} levels"
            )
            self.problem("DL-C007", path[:4], read, "a file without such aliases", node.start_mark)
            raise ConfigError(self.problems)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, SequenceNode):
            self._check_tag(node, "seq", path)
            values = []
            for index, item in enumerate(node.value):
                place = _position(item.start_mark)
                self.places[(*path, index)] = Place(place, place)
                values.append(self.value(item, (*path, index)))
            return tuple(values)
        assert isinstance(node, MappingNode)
        self._check_tag(node, "map", path)
        return self._mapping(node, path)

    def _mapping(self, node: MappingNode, path: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or key_node.tag not in (_TAGS + "str", _TAGS + "timestamp"):
                if isinstance(key_node, ScalarNode) and key_node.tag == _TAGS + "merge":
                    self.problem(
                        "DL-C006",
                        path,
                        "the merge key <<",
                        "YAML 1.2 has none: write the keys out",
                        key_node.start_mark,
                    )
                else:
                    shown = (
                        f"the key {key_node.value}"
                        if isinstance(key_node, ScalarNode)
                        else "a list or mapping as a key"
                    )
                    self.problem("DL-C008", path, f"{shown} is not text", "text: put it in quotes", key_node.start_mark)
                continue
            key = str(key_node.value)
            place = _position(key_node.start_mark)
            if key in values:
                first = self.places[(*path, key)].key
                self.problem(
                    "DL-C005",
                    (*path, key),
                    "the key stands twice",
                    f"one of them; the first is in line {first[0]}",
                    key_node.start_mark,
                )
                continue
            empty = isinstance(value_node, ScalarNode) and not value_node.value and value_node.style is None
            self.places[(*path, key)] = Place(place, place if empty else _position(value_node.start_mark))
            values[key] = self.value(value_node, (*path, key))
        return values

    def _check_tag(self, node: Node, expected: str, path: Key) -> bool:
        if node.tag == _TAGS + expected:
            return True
        self.problem("DL-C006", path, f"the tag {node.tag}", "plain values, without tags", node.start_mark)
        return False

    def _scalar(self, node: ScalarNode, path: Key) -> Any:
        """By YAML 1.2's core schema; dates stay text, since no key is a date."""
        kind = str(node.tag).removeprefix(_TAGS)
        construct = self.yaml.constructor
        if kind in {"str", "timestamp"}:
            text = str(node.value)
            if any(0xD800 <= ord(character) < 0xE000 for character in text):
                self.problem("DL-C003", path, "an unpaired surrogate", "valid Unicode text", node.start_mark)
                return ""
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return bool(construct.construct_yaml_bool(node))
        if kind == "int" and len(node.value) <= 40:
            return int(construct.construct_yaml_int(node))
        if kind == "float":
            return float(construct.construct_yaml_float(node))
        self._check_tag(node, "str", path)
        return None


def _position(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1)


def dotted(path: Key) -> str:
    """models.fraud.targets.amount, models.fraud.detectors[0]; a key with a dot or space in it is quoted."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = key and all(character.isalnum() or character in "_-" for character in key)
            text += ("." if text else "") + (key if plain else f'"{key[:80]}"')
    return text


def _refuse(code: str, read: str, expected: str, file: str, mark: Any = None) -> ConfigError:
    line, column = _position(mark) if mark is not None else (0, 0)
    return ConfigError([Problem(code, "", read, expected, file, line, column)])


def read_text(path: Path) -> str:
    """The text of the file, a byte order mark cut off. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _refuse("DL-C001", f"{error.strerror}", "a readable file", str(path)) from None
    if len(raw) > FILE_BYTES_MAX:
        raise _refuse("DL-C002", "the file is larger than 1 MB", "at most 1 MB", str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        problem = Problem(
            "DL-C003", "", f"byte 0x{raw[error.start]:02x} is not UTF-8", "UTF-8 text", str(path), line, column
        )
        raise ConfigError([problem]) from None


def _check_events(text: str, file: str) -> None:
    """Refuses by counting, before any tree is built. Raises ConfigError, MarkedYAMLError."""
    depth = aliases = documents = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise _refuse(
                    "DL-C007", f"deeper than {DEPTH_MAX} levels", f"at most {DEPTH_MAX} levels", file, event.start_mark
                )
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        elif isinstance(event, AliasEvent):
            aliases += 1
            if aliases > ALIASES_MAX:
                raise _refuse(
                    "DL-C007",
                    f"more than {ALIASES_MAX} aliases",
                    f"at most {ALIASES_MAX} aliases",
                    file,
                    event.start_mark,
                )
        elif isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refuse("DL-C009", "a second document", "one document", file, event.start_mark)
        tag = str(getattr(event, "tag", None))
        if isinstance(event, NodeEvent) and tag not in {"!", "None"}:
            raise _refuse("DL-C006", f"the tag {tag}", "plain values, without tags", file, event.start_mark)


def read_yaml(text: str, file: str) -> tuple[dict[str, Any], dict[Key, Place]]:
    """Plain values and their places. Raises ConfigError: at once for a hostile or broken file, else with all problems."""
    try:
        _check_events(text, file)
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = f"{error.problem or error.context}"
        if "'\\t'" in said:
            raise _refuse("DL-C004", "a tab", "spaces: YAML does not indent with tabs", file, mark) from None
        raise _refuse("DL-C004", said.replace("\n", " "), "valid YAML", file, mark) from None
    except (YAMLError, ValueError) as error:
        raise _refuse("DL-C004", str(error).split("\n", 1)[0][:200], "valid YAML", file) from None
    if node is None:
        raise _refuse("DL-C009", "the file is empty", "at least kafka, topics and models", file)
    if not isinstance(node, MappingNode):
        raise _refuse("DL-C011", "the file is no mapping", "keys: kafka, topics, models", file, node.start_mark)
    reader = _Reader(file, yaml)
    values = reader.value(node, ())
    if reader.problems:
        raise ConfigError(reader.problems)
    return values, reader.places


_LIMITS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "finite_number": "a finite number",
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text (put it in quotes)",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (true or false)"
    if isinstance(value, int | float):
        return f"{value!r} (a number)"
    if isinstance(value, str):
        return f"{value[:60]!r} (text)"
    return "a list" if isinstance(value, tuple) else "a mapping"


def _section_keys(path: Key) -> list[str]:
    """Known keys of the mapping at `path`, found by walking the models. Empty for free names."""
    found: Any = Config
    for key in path:
        if isinstance(key, int):
            found = _inner(found, sequence=True)
        elif isinstance(found, type) and issubclass(found, BaseModel):
            info = found.model_fields.get(key)
            found = _inner(info.annotation if info else None)
        else:
            found = _inner(found, sequence=True)
        if found is None:
            return []
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []


def _inner(annotation: Any, *, sequence: bool = False) -> Any:
    """The model class inside Annotated, Optional, and (sequence) inside tuple[X, ...] and dict[str, X]."""
    if annotation is None or isinstance(annotation, type):
        return annotation
    parts = [part for part in getattr(annotation, "__args__", ()) if part is not type(None) and part is not Ellipsis]
    origin = getattr(annotation, "__origin__", None)
    if origin in (tuple, dict):
        return _inner(parts[-1]) if sequence else annotation
    if hasattr(annotation, "__metadata__"):
        return _inner(annotation.__origin__, sequence=sequence)
    return _inner(parts[0], sequence=sequence) if parts else None


def _translate(error: Any, path: Key) -> tuple[str, str, str]:
    """(code, what was read, what was expected) of one pydantic error."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "driftline":
        return context["code"], context["message"], f"expected: {context['expected']}"
    if kind == "missing":
        return "DL-C010", "missing", f"needed here: {_needed(path)}"
    if kind == "extra_forbidden":
        return "DL-C012", "unknown key", unknown_name(str(path[-1]), _section_keys(path[:-1]))
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        guess = nearest(str(value), expected.replace(" or ", ", ").split(", "))
        return (
            "DL-C013",
            f"{_found(value)} is not known",
            (f"did you mean `{guess}`?  " if guess else "") + f"Known here: {expected}",
        )
    if kind in _TYPES:
        return "DL-C011", _found(value), f"expected: {_TYPES[kind]}"
    if kind in _LIMITS:
        return "DL-C014", _found(value), f"expected: {_LIMITS[kind].format(**context)}"
    if kind in {"too_short", "too_long"}:
        few = kind == "too_short"
        limit = context["min_length"] if few else context["max_length"]
        return "DL-C014", f"{context['actual_length']} entries", f"expected: {'at least' if few else 'at most'} {limit}"
    return "DL-C011", _found(value), f"expected: {error['msg']}"


def _needed(path: Key) -> str:
    if isinstance(path[-1], int):
        return f"value number {path[-1] + 1}"
    keys = _section_keys(path[:-1])
    return path[-1] + (f" (known here: {', '.join(sorted(keys))})" if keys else "")


def _place_of(path: Key, places: dict[Key, Place], *, key: bool) -> tuple[int, int]:
    """The place of `path`, or of the nearest thing around it that stands in the file."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            place = places[path[:length]]
            return place.key if key else place.value
    return (1, 1) if places else (0, 0)


def validate(data: dict[str, Any], *, base: Path, places: dict[Key, Place] | None = None, file: str = "") -> Config:
    """Config from plain values. Raises ConfigError with all problems; a secret's value is in none of them."""
    places = places or {}
    try:
        return Config.model_validate(_frozen(data), context={"base": base})
    except ValidationError as failure:
        problems = []
        for error in failure.errors(include_url=False):
            path = tuple(part for part in error["loc"] if part != "[key]")
            code, read, expected = _translate(error, path)
            if len(path) > 1 and path[:-1] in places and path not in places and code not in {"DL-C010", "DL-C012"}:
                path = path[:-1]  # a bare text that stands for a list or a mapping
            line, column = _place_of(path, places, key=code in {"DL-C010", "DL-C012"})
            problems.append(Problem(code, dotted(path), read, expected, file, line, column))
    raise ConfigError(problems)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _literal_secrets(model: BaseModel, path: Key, found: list[Key]) -> list[Key]:
    """Paths of secrets that stand in the file itself."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Secret) and value.literal:
            found.append((*path, name))
        elif isinstance(value, BaseModel):
            _literal_secrets(value, (*path, name), found)
    return found


def load(path: str | os.PathLike[str]) -> LoadedConfig:
    """Read, check and freeze one file; paths in it are relative to its folder. Raises ConfigError."""
    from stream.config_checks import check

    source = Path(path)
    file = str(source)
    text = read_text(source)
    data, places = read_yaml(text, file)
    config = validate(data, base=source.parent, places=places, file=file)
    warnings = [
        Problem(
            "DL-C017",
            dotted(found),
            "a secret stands in the file",
            "better: ${NAME} or ${file:PATH}",
            file,
            *places[found].value,
            Severity.WARNING,
        )
        for found in _literal_secrets(config, (), [])
    ]
    problems = [
        Problem(code, dotted(where), read, expected, file, *_place_of(where, places, key=False))
        for code, where, read, expected in check(config)
    ]
    if problems:
        raise ConfigError(problems)
    return LoadedConfig(config, file, text, places, tuple(warnings))


def load_config(path: str | os.PathLike[str]) -> Config:
    """The valid configuration in `path`. Raises ConfigError with every problem of the file."""
    return load(path).config
