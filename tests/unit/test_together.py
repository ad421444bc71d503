"""A partition number without all of its topics waits for another assignment; only one that lasts is refused."""

from __future__ import annotations

import logging
from collections.abc import Collection
from types import SimpleNamespace

import pytest

from stream import together
from stream.together import apart, stays
from stream.worker_main import SELDOM_S, Seldom

NEEDED = ("predictions", "clicks", "labels")


def test_numbers_lack_what_others_of_their_number_have() -> None:
    whole = [(source, number) for source in NEEDED for number in range(3)]
    assert apart(whole, NEEDED) == {}
    assert apart([pair for pair in whole if pair not in {("clicks", 1), ("labels", 1), ("labels", 2)}], NEEDED) == {
        1: ["clicks", "labels"],
        2: ["labels"],
    }
    assert apart([("clicks", 0)], NEEDED) == {0: ["labels", "predictions"]}
    assert apart([], NEEDED) == {}


@pytest.mark.parametrize(
    ("answers", "looks_max", "lasts"),
    [
        ([True] * 9, 99, True),  # the topic is there and nobody assigns it
        ([True, True, False], 99, True),  # it was gone once: counted from its return
        ([], 9, False),  # gone: not judged here
        ([True, True], 2, False),  # another assignment came
        ([None, True, None], 99, True),  # no answer for a while
    ],
)
async def test_it_is_refused_only_while_the_topic_is_there(
    answers: list[bool | None], looks_max: int, lasts: bool
) -> None:
    looks = 0

    async def topics(names: Collection[str]) -> dict[str, object]:
        nonlocal looks
        looks += 1
        said = answers[looks - 1] if looks <= len(answers) else bool(answers)
        if said is None:
            raise OSError
        return dict.fromkeys(names, 1) if said else {}

    found = await stays(["clicks"], topics, lambda: looks < looks_max, lambda: None, stays_s=0.2, poll_s=0.02)
    assert found is lasts
    assert looks >= min(looks_max, 5)


async def test_it_is_told_whatever_was_told_just_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred lines a second of a client, and the same text of another assignment half a second before."""
    clock, shown = [100.0], []
    seldom = Seldom(lambda: clock[0])
    monkeypatch.setattr(together, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def line(name: str, text: str, *args: object) -> None:
        record = logging.LogRecord(name, logging.WARNING, "", 0, text, args, None)
        if seldom.filter(record):
            shown.append(record.getMessage())

    async def pause(seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            clock[0] += 0.01
            line("aiokafka.client", f"cannot reach {round(clock[0] * 100)}: %s", 1)

    async def topics(names: Collection[str]) -> dict[str, object]:
        return dict.fromkeys(names, 1)

    def say(what: str) -> None:
        line("stream.app", "%s; they wait for another assignment", what)

    monkeypatch.setattr(together, "asyncio", SimpleNamespace(sleep=pause))
    await pause(1.5)
    say("the one before")
    await pause(0.5)
    assert await stays(["clicks"], topics, lambda: True, lambda: say("partition 3"))
    told = [text.partition(";")[0] for text in shown if "they wait" in text]
    assert told[:2] == ["the one before", "partition 3"]
    assert len(told) <= 1 + together.STAYS_S / together.SAY_S
    assert SELDOM_S <= together.SAY_S
