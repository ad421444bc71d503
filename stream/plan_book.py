"""Which plan is in force for which model from which pane edge on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stream.pane_state import PlanTables, tables_of
from stream.panes import EDGE_MIN
from stream.plan import UNKNOWN_MODEL, ModelPlan
from stream.plan_codec import sealed

NO_PLAN = ""  # the model's events are counted under __unknown__
UNKNOWN_TABLES = PlanTables(ModelPlan(UNKNOWN_MODEL, "", ()))  # events are counted, nothing else


class UnknownPlanError(ValueError):
    """A decision names a plan that was never offered here."""


class PlanBook:
    """Plans by hash, and per model the edges at which one follows the other."""

    def __init__(self, plans: Iterable[ModelPlan] = ()) -> None:
        self._tables: dict[str, PlanTables] = {NO_PLAN: UNKNOWN_TABLES}
        self._schedule: dict[str, list[tuple[int, str]]] = {}
        for plan in plans:
            self._schedule[plan.model] = [(EDGE_MIN, self.offer(plan))]

    def offer(self, plan: ModelPlan) -> str:
        """Make a plan known; counting does not change. Returns its hash. Raises PlanInvalidError."""
        plan = sealed(plan)
        self._tables[plan.hash] = tables_of(plan)
        return plan.hash

    def tables(self, plan_hash: str) -> PlanTables:
        """Raises UnknownPlanError."""
        try:
            return self._tables[plan_hash]
        except KeyError:
            raise UnknownPlanError(f"plan {plan_hash!r} is not known to this collector; offer it first") from None

    def at(self, model: str, edge_ms: int) -> PlanTables | None:
        """The plan of the model's panes that start at `edge_ms`; None = the model is not watched then."""
        for first_ms, plan_hash in reversed(self._schedule.get(model, ())):
            if first_ms <= edge_ms:
                return None if plan_hash == NO_PLAN else self._tables[plan_hash]
        return None

    def switch(self, model: str, plan_hash: str, first_ms: int) -> None:
        """From `first_ms` on, which no open pane has reached, another plan. Raises UnknownPlanError."""
        tables = self.tables(plan_hash)
        if plan_hash != NO_PLAN and tables.plan.model != model:
            raise UnknownPlanError(f"plan {plan_hash!r} is of model {tables.plan.model!r}, not {model!r}")
        earlier = [entry for entry in self._schedule.get(model, ()) if entry[0] < first_ms]
        if (earlier[-1][1] if earlier else NO_PLAN) != plan_hash:
            earlier.append((first_ms, plan_hash))
        self._schedule[model] = earlier

    def fold(self, marked_ms: int) -> None:
        """Forget what no pane at or after `marked_ms` can need."""
        for model, entries in self._schedule.items():
            past = sum(first_ms <= marked_ms for first_ms, _ in entries)
            if past > 1:
                self._schedule[model] = entries[past - 1 :]

    def in_force(self) -> dict[str, str]:
        """Model -> hash of the plan of its next unopened pane; models that are not watched any more are left out."""
        last = {model: entries[-1][1] for model, entries in sorted(self._schedule.items()) if entries}
        return {model: plan_hash for model, plan_hash in last.items() if plan_hash != NO_PLAN}

    def needed(self) -> set[str]:
        """Hashes that the schedule names."""
        return {plan_hash for entries in self._schedule.values() for _, plan_hash in entries} - {NO_PLAN}

    def header(self) -> dict[str, list[list[int | str]]]:
        """The schedule, for a snapshot."""
        return {model: [[edge, plan_hash] for edge, plan_hash in entries] for model, entries in self._schedule.items()}

    def restore(self, header: Mapping[str, list[list[int | str]]]) -> None:
        """The schedule of a snapshot; its plans are offered already. Raises UnknownPlanError."""
        self._schedule = {}
        for model, entries in header.items():
            self._schedule[model] = [(int(edge), str(plan_hash)) for edge, plan_hash in entries]
            for _, plan_hash in self._schedule[model]:
                self.tables(plan_hash)

    def category_columns(self) -> list[int]:
        """Columns that any known plan reads as categories."""
        found: set[int] = set()
        for tables in self._tables.values():
            found |= tables.category_columns
        return sorted(found)

    @property
    def column_max(self) -> int:
        return max(tables.column_max for tables in self._tables.values())

    @property
    def nbytes(self) -> int:
        return sum(tables.nbytes for tables in self._tables.values())
