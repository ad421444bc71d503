"""The JSON Schema of monitor.yaml, generated from the models: what editors complete and check while one writes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from stream.config import AUTO, Config, Window
from stream.config_topics import NATIVE
from stream.quantities import Duration, Rate, Size
from stream.topics import INPUTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Defaults as they would be written in the file; no generated titles, which only repeat the keys."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Duration | Rate | Size):
            return str(dft)
        if isinstance(dft, Window):
            return AUTO
        if isinstance(dft, BaseModel):
            return {}
        return super().encode_default(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the whole file. Texts that stand for an object (`auto`, a topic's name) are allowed too."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    definitions = schema["$defs"]
    for role in INPUTS:
        _also(definitions["Topics"]["properties"], role.value, {"type": "string"})
    for section in ("PredictionsTopic", "ClicksTopic", "ConversionsTopic", "LabelsTopic"):
        _also(definitions[section]["properties"], "mapping", {"const": NATIVE})
    for section in ("Defaults", "Model"):
        _also(definitions[section]["properties"], "window", {"const": AUTO})
    for section in ("Defaults", "Model", "Target"):
        _also(definitions[section]["properties"], "tolerance", {"const": AUTO})
    return {"$schema": DIALECT, "title": "driftline monitor.yaml", **schema}


def _also(properties: dict[str, Any], key: str, form: dict[str, Any]) -> None:
    """Allows `form` for properties[key] beside what its model says."""
    own = properties[key]
    about = {name: own.pop(name) for name in ("description", "default") if name in own}
    properties[key] = {**about, "anyOf": [form, *own.pop("anyOf", [own])]}
