"""A pool of processes that has none: for tests of what is given to a pool."""

from __future__ import annotations

from typing import Any, ClassVar, Self


class StopError(Exception):
    """Power is gone."""


class Inline:
    """Runs tasks where their result is asked for, as a pool does in its own time, and counts them: at the task `stop_at` power is gone."""

    ran: ClassVar[list[tuple[Any, ...]]] = []
    stop_at: ClassVar[int] = -1

    def __init__(self, jobs: int, initializer: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, task: Any, *args: Any) -> Any:
        class Later:
            def result(self) -> Any:
                if len(Inline.ran) == Inline.stop_at:
                    raise StopError
                Inline.ran.append((task.__name__, args[0]))
                return task(*args)

        return Later()
