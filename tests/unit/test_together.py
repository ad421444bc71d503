"""A partition number without all of its topics waits for another assignment; only one that lasts is refused."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from stream.together import apart, stays

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

    found = await stays(["clicks"], topics, lambda: looks < looks_max, stays_s=0.2, poll_s=0.02)
    assert found is lasts
    assert looks >= min(looks_max, 5)
