"""`RefusalLog`: log lines that strangers can cause, at a bounded rate."""

import logging
import math

import attrs

_INTERVAL = 60.0  # seconds between two lines


@attrs.define(eq=False)
class RefusalLog:
    """Logs refusals of one kind: at most one line a minute, with the number since the last one."""

    _logger: logging.Logger
    _refused: int = attrs.field(default=0, init=False)  # since the last line
    _next_line: float = attrs.field(default=-math.inf, init=False)

    def warning(self, event: str, now: float, **fields: object) -> None:
        """Count a refusal, and log it if a line is due.

        Args:
            event: The line.
            now: The time, in seconds.
            fields: Of the line, which also has the number as `refused`.
        """
        self._refused += 1
        if now >= self._next_line:
            self._next_line = now + _INTERVAL
            self._logger.warning(event, extra={"refused": self._refused, **fields})
            self._refused = 0
