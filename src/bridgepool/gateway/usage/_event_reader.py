"""Usage in a stream of server-sent events. Pure.

Every ``data:`` line is read as a document of its own, as the provider types that there are send
them. Field names other than ``data``, the ends of events and comments make no difference.
"""

from __future__ import annotations

from typing import Final

import attrs

from bridgepool.gateway.usage._json_reader import MAX_DECODED_BYTES, decode_into
from bridgepool.gateway.usage._scanner import MAX_STEPS, Scanner
from bridgepool.gateway.usage._tokens import Findings, Usage

_DATA: Final = b"data:"


@attrs.define(eq=False)
class EventReader:
    """Reads one stream of events; a `UsageReader`."""

    _findings: Findings
    _line: bytearray = attrs.field(factory=bytearray, init=False)  # that has begun
    # of a line that is too long to be kept
    _scanner: Scanner | None = attrs.field(default=None, init=False)
    _is_long: bool = attrs.field(default=False, init=False)
    _steps_left: int = attrs.field(default=MAX_STEPS, init=False)  # for all such lines

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if b"\r" in data:
            data = data.replace(b"\r", b"\n")
        first, *lines = data.split(b"\n")
        if not lines:
            self._go_on(first)
            return
        if self._line or self._is_long:
            self._go_on(first)
            self._end_line()
        else:
            self._read(first)
        last = lines.pop()
        for line in lines:
            if line:
                self._read(line)
        if last:
            self._go_on(last)

    def _go_on(self, data: bytes) -> None:
        """Take a part of a line whose end has not come."""
        if not self._is_long:
            self._line += data
            if len(self._line) <= MAX_DECODED_BYTES:
                return
            data = bytes(self._line)
            self._is_long = True
            self._line.clear()
            if data.startswith(_DATA):
                self._scanner = Scanner(self._findings, self._steps_left)
                data = data[len(_DATA) :]
        if self._scanner is not None:
            self._scanner.feed(data)

    def _end_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._scanner is not None:
            self._steps_left -= self._scanner.steps
        self._scanner, self._is_long = None, False
        if line:
            self._read(line)

    def _read(self, line: bytes) -> None:
        """Read a whole line."""
        if not line.startswith(_DATA):
            return
        if len(line) > MAX_DECODED_BYTES:
            scanner = Scanner(self._findings, self._steps_left)
            scanner.feed(line[len(_DATA) :])
            self._steps_left -= scanner.steps
            return
        document = line[len(_DATA) :].strip()
        if document == b"[DONE]":
            self._findings.ended = True
        elif document:
            decode_into(self._findings, document)

    def result(self) -> Usage:
        """Return what was read; call it once, at the end."""
        self._end_line()
        return self._findings.result()
