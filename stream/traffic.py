"""How a model's traffic is spread over its versions: which one feeds the input series, and what weight a window has."""

from __future__ import annotations

from dataclasses import dataclass

from stream.series import feeding_version


@dataclass(frozen=True, slots=True)
class Traffic:
    """Events of each version in the window before, and in this one; time since the one before began."""

    elapsed_ms: int
    before: dict[str, int]
    now: dict[str, int]

    @property
    def main_version(self) -> str:
        return feeding_version(self.before, self.now)

    def weight(self, version: str) -> float:
        """w_t of a version's series: fixed before the window's content is seen."""
        total = sum(self.before.values())
        return self.elapsed_ms * self.before.get(version, 0) / total if total else 0.0
