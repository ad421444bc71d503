"""Online detectors: one number after the other, and after each whether the series has changed.

The series is any one: a figure of every window, or the errors (0 and 1) of a model. Each file holds one detector:

    Parameters   frozen, with limits
    start(parameters) -> state                                         before the first value
    update(state, value) -> Step                                       mutates the state; BadValue leaves it untouched
    state_to_sections(parameters, state) -> header, arrays             plain values, no object of river's
    state_from_sections(parameters, header, arrays) -> state           goes on bit for bit; BadState

`started` and `restored` are how one is used by its name.

Absence   A value that is missing is not given: nothing happens, time does not count. NaN and infinity are refused, because
          river takes them and is silent, or alarms, for good.
Order     States do not merge: a detector depends on the order of its values, so there is one per series, in one place.
Alarms    After one a detector starts anew with the next value, from nothing. None of them is inside the promise of
          `false_alarms`; where something holds for independent values it is in the file's Guarantee, and values of
          consecutive windows seldom are independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from detectors.online.series import Saved, Sections, Step
from detectors.parameters import Base, read
from detectors.registry import Family
from detectors.verdict import BadSettings

__all__ = ["Online", "Step", "restored", "started"]


@dataclass(frozen=True, slots=True)
class Online:
    """A detector with its state, which `update` changes."""

    module: ModuleType
    parameters: Base
    state: Any

    def update(self, value: float) -> Step:
        """One value more. Raises BadValue, with the state untouched."""
        step: Step = self.module.update(self.state, value)
        return step

    def sections(self) -> Saved:
        """(header of JSON values, named arrays) of the state as it is: copies."""
        saved: Saved = self.module.state_to_sections(self.parameters, self.state)
        return saved


def started(name: str, parameters: Mapping[str, Any] | None = None) -> Online:
    """The registered detector of this name before its first value. Raises BadSettings."""
    module, settings = _known(name, parameters)
    return Online(module, settings, module.start(settings))


def restored(
    name: str, header: Mapping[str, Any], sections: Sections, parameters: Mapping[str, Any] | None = None
) -> Online:
    """The detector as it was when it was saved with the same parameters. Raises BadSettings, BadState."""
    module, settings = _known(name, parameters)
    return Online(module, settings, module.state_from_sections(settings, header, sections))


def _known(name: str, parameters: Mapping[str, Any] | None) -> tuple[ModuleType, Base]:
    from detectors import REGISTRY, load

    if name not in REGISTRY or REGISTRY[name].family is not Family.ONLINE:
        known = ", ".join(sorted(other for other, entry in REGISTRY.items() if entry.family is Family.ONLINE))
        raise BadSettings(f"{name!r} is no online detector; known here: {known}")
    module = load(name)
    return module, read(module.Parameters, parameters or {})
