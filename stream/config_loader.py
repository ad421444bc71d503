"""From the text of monitor.yaml to a Config: every value keeps its place, and all problems are reported at once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stream.config import Config
from stream.config_errors import ConfigError, Problem, Severity, nearest, unknown_name
from stream.config_told import of_classes
from stream.quantities import Secret
from stream.yaml_places import Key, Place, dotted, read_yaml, refuse

FILE_BYTES_MAX = 1_000_000  # 2,000 targets with every setting are 300 kB


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


def read_text(path: Path) -> str:
    """The text of the file, a byte order mark cut off. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise refuse("DL-C001", f"{error.strerror}", "a readable file", str(path)) from None
    if len(raw) > FILE_BYTES_MAX:
        raise refuse("DL-C002", "the file is larger than 1 MB", "at most 1 MB", str(path))
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
        expected = str(context["expected"])
        return context["code"], context["message"], expected if "nown here: " in expected else f"expected: {expected}"
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
    data, places = read_yaml(text, file, of_classes)
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
