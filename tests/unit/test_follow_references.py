"""Switching to references that were promoted: one that makes no plan keeps its model where it is, and no other model."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream import upkeep
from stream.planning import PlanningError


def test_a_reference_that_makes_no_plan_holds_up_no_other_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aligned = []

    def model_plan(_config: Any, model: str, profile: Any, *_: Any) -> Any:
        if model == "bad":
            raise PlanningError("models.bad: arrays of 3 numbers, 4 are declared")
        return SimpleNamespace(model=model, reference=profile.id)

    async def nothing(*_: Any) -> None: ...

    async def stored(reference: str) -> Any:
        return SimpleNamespace(id=reference)

    async def align(slot: str) -> None:
        aligned.append(slot)

    monkeypatch.setattr(upkeep, "model_plan", model_plan)
    names = ("bad", "good")
    here: Any = SimpleNamespace(
        _read_on=nothing, _require_owner=lambda: None, _stored=stored, _align=align,
        control=SimpleNamespace(add=None, active={name: SimpleNamespace(reference="new", revision=2) for name in names}),
        owners=SimpleNamespace(of=lambda _kind: ["slot"]),
        worker=SimpleNamespace(
            setup=SimpleNamespace(
                config=SimpleNamespace(models=names), profiles={}, discovered={}, layout=SimpleNamespace(paths=())
            )
        ),
        _wanted={name: SimpleNamespace(model=name, reference="old") for name in names},
    )  # fmt: skip
    asyncio.run(upkeep.Upkeep.follow(here))
    assert {name: plan.reference for name, plan in here._wanted.items()} == {"bad": "old", "good": "new"}
    assert aligned == ["slot"]
    assert "models.bad: stays with the reference it has: models.bad: arrays of 3 numbers" in caplog.text
