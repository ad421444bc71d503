"""Says how far the references that are being learnt have come: hours can pass until anything is judged."""

from __future__ import annotations

import logging

from stream.monitor import Monitor

log = logging.getLogger(__name__)

STEPS = 10  # log lines of each phase of learning a reference


class LearningLog:
    """What was said of each model."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, int]] = {}

    def say(self, monitor: Monitor) -> None:
        """A line for each model that has come a step further."""
        for name, model in monitor.models.items():
            learner = model.learner
            if learner is None:
                if self._said.pop(name, None) is not None:
                    log.info("models.%s: its reference is complete; from now on windows are judged", name)
                continue
            step = (learner.phase, int(learner.share * STEPS))
            if self._said.get(name) != step:
                self._said[name] = step
                log.info("models.%s: %s", name, learner.said())
