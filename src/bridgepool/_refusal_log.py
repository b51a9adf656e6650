"""`RefusalLog`: log lines that strangers can cause, at a bounded rate."""

import logging
import math
from collections.abc import Mapping

import attrs

_INTERVAL = 60.0  # seconds between two lines


@attrs.define(eq=False)
class RefusalLog:
    """Logs refusals of one kind: at most one line a minute, with the number since the last one."""

    _logger: logging.Logger
    _refused: int = attrs.field(default=0, init=False)  # since the last line
    _next_line: float = attrs.field(default=-math.inf, init=False)

    def warning(self, now: float, event: str, *arguments: object, **fields: object) -> None:
        """Count a refusal, and log it as a warning if a line is due.

        Args:
            now: The time, in seconds.
            event: The line, as `logging` formats it with the arguments.
            arguments: Its arguments.
            fields: Of the line, which also has the number as `refused`.
        """
        self._write(logging.WARNING, now, event, arguments, fields)

    def info(self, now: float, event: str, *arguments: object, **fields: object) -> None:
        """Do the same at the level info."""
        self._write(logging.INFO, now, event, arguments, fields)

    def _write(
        self,
        level: int,
        now: float,
        event: str,
        arguments: tuple[object, ...],
        fields: Mapping[str, object],
    ) -> None:
        self._refused += 1
        if now >= self._next_line:
            self._next_line = now + _INTERVAL
            facts = {"refused": self._refused, **fields}
            self._logger.log(level, event, *arguments, extra=facts)
            self._refused = 0
