"""What the configuration says of how cells are read: texts that may be numbers, and arrays of numbers. Pure."""

from __future__ import annotations

from typing import Any

from stream.config import Config, Model
from stream.mapping import FEATURES


def coerced_paths(config: Config) -> set[str]:
    """Paths at which a text may be a number: a column is read once, so one model's word holds for all."""
    names = {name for model in config.models.values() for name, target in model.targets.items() if target.coerce}
    return names | {f"{FEATURES}.{name}" for name in names}


def lengths_of(model: Model) -> dict[str, int]:
    """Watched features of a model that are arrays -> how many numbers."""
    return {name: own.dimension for name, own in model.targets.items() if own.dimension is not None and own.watch}


def array_lengths(config: Config) -> dict[str, dict[str, int]]:
    """Path of each feature that is an array -> model -> how many numbers: each model's word holds for its own events."""
    found: dict[str, dict[str, int]] = {}
    for model, settings in config.models.items():
        for name, length in lengths_of(settings).items():
            found.setdefault(f"{FEATURES}.{name}", {})[model] = length
    return found


def read_otherwise(config: Config) -> dict[str, Any]:
    """What of it counting depends on; a configuration without arrays keeps its hash."""
    deciding: dict[str, Any] = {"coerce": sorted(coerced_paths(config))}
    arrays = array_lengths(config)
    return deciding | {"arrays": arrays} if arrays else deciding
