"""YAML into plain values that know their places.

YAML 1.2 (`no` is text, 1e-3 a number), no tags, no merge keys, bounded size, depth and aliases: the parser's events are
counted before anything is built, so that a hostile file costs neither memory nor recursion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from stream.config_errors import ConfigError, Problem

DEPTH_MAX = 32
ALIASES_MAX = 100
NODES_MAX = 200_000  # after aliases are followed
INT_CHARACTERS_MAX = 40
QUOTE = "text: put it in quotes"

Key = tuple[str | int, ...]
_TAGS = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column of a key and of its value, counted from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass
class _Reader:
    """Plain values from the nodes of one document. `plain_keys`: whether a bare number, true or false may be a key of the mapping at a
    path: it is the text that JSON would write.
    """

    file: str
    yaml: Any
    plain_keys: Callable[[Key], bool]
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
            key = self._key(key_node, path)
            if key is None:
                continue
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

    def _key(self, node: Node, path: Key) -> str | None:
        """A key of the mapping at `path`; None and a problem where it is none."""
        if not isinstance(node, ScalarNode):
            self.problem("DL-C008", path, "a list or mapping as a key is not text", QUOTE, node.start_mark)
            return None
        kind = str(node.tag).removeprefix(_TAGS)
        if kind in {"str", "timestamp"}:
            return str(node.value)
        if kind == "merge":
            self.problem("DL-C006", path, "the merge key <<", "YAML 1.2 has none: write the keys out", node.start_mark)
            return None
        if kind in {"int", "bool"} and len(node.value) <= INT_CHARACTERS_MAX and self.plain_keys(path):
            value = self._scalar(node, path)
            return None if value is None else str(value).lower()
        self.problem("DL-C008", path, f"the key {node.value} is not text", QUOTE, node.start_mark)
        return None

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
        try:
            if kind == "int" and len(node.value) <= INT_CHARACTERS_MAX:
                return int(construct.construct_yaml_int(node))
            if kind == "float":
                return float(construct.construct_yaml_float(node))
        except ValueError:  # 0x_, -_, ._: to the parser numbers, without a digit
            self.problem("DL-C004", path, f"{node.value} is no number", "a number, or text in quotes", node.start_mark)
            return None
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


def refuse(code: str, read: str, expected: str, file: str, mark: Any = None) -> ConfigError:
    line, column = _position(mark) if mark is not None else (0, 0)
    return ConfigError([Problem(code, "", read, expected, file, line, column)])


def _check_events(text: str, file: str) -> None:
    """Refuses by counting, before any tree is built. Raises ConfigError, MarkedYAMLError."""
    depth = aliases = documents = 0
    anchors: set[str] = set()
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise refuse(
                    "DL-C007", f"deeper than {DEPTH_MAX} levels", f"at most {DEPTH_MAX} levels", file, event.start_mark
                )
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        elif isinstance(event, AliasEvent):
            aliases += 1
            if aliases > ALIASES_MAX:
                raise refuse(
                    "DL-C007",
                    f"more than {ALIASES_MAX} aliases",
                    f"at most {ALIASES_MAX} aliases",
                    file,
                    event.start_mark,
                )
        elif isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise refuse("DL-C009", "a second document", "one document", file, event.start_mark)
        anchor = getattr(event, "anchor", None)
        if anchor is not None and not isinstance(event, AliasEvent):
            if anchor in anchors:  # YAML would let the second one win for what follows
                raise refuse("DL-C005", f"the anchor &{anchor} stands twice", "another name", file, event.start_mark)
            anchors.add(anchor)
        tag = str(getattr(event, "tag", None))
        if isinstance(event, NodeEvent) and tag not in {"!", "None"}:
            raise refuse("DL-C006", f"the tag {tag}", "plain values, without tags", file, event.start_mark)


def read_yaml(
    text: str, file: str, plain_keys: Callable[[Key], bool] = lambda _: False
) -> tuple[dict[str, Any], dict[Key, Place]]:
    """Plain values and their places; `plain_keys`: as _Reader. Raises ConfigError: at once for a hostile or broken file, else
    with all problems.
    """
    try:
        _check_events(text, file)
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = f"{error.problem or error.context}"
        if "'\\t'" in said:
            raise refuse("DL-C004", "a tab", "spaces: YAML does not indent with tabs", file, mark) from None
        raise refuse("DL-C004", said.replace("\n", " "), "valid YAML", file, mark) from None
    except (YAMLError, ValueError) as error:
        raise refuse("DL-C004", str(error).split("\n", 1)[0][:200], "valid YAML", file) from None
    if node is None:
        raise refuse("DL-C009", "the file is empty", "at least kafka, topics and models", file)
    if not isinstance(node, MappingNode):
        raise refuse("DL-C011", "the file is no mapping", "keys: kafka, topics, models", file, node.start_mark)
    reader = _Reader(file, yaml, plain_keys)
    values = reader.value(node, ())
    if reader.problems:
        raise ConfigError(reader.problems)
    return values, reader.places
