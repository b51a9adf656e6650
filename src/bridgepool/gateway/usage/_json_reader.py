"""Usage in a JSON answer. Pure."""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from bridgepool.gateway.providers._usage_fields import decoder_of
from bridgepool.gateway.usage._scanner import Scanner
from bridgepool.gateway.usage._tokens import Findings, Usage

MAX_DECODED_BYTES: Final = 32 * 1024
"""The longest document that is kept and decoded; a longer one is scanned as it passes."""


def decode_into(findings: Findings, document: bytes | bytearray) -> bool:
    """Take what a whole document tells; return whether it is JSON."""
    try:
        findings.read(decoder_of(findings.fields)(document))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


@attrs.define(eq=False)
class JsonReader:
    """Reads one JSON document; a `UsageReader`."""

    _findings: Findings
    _document: bytearray = attrs.field(factory=bytearray, init=False)
    _scanner: Scanner | None = attrs.field(default=None, init=False)

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if self._scanner is None:
            self._document += data
            if len(self._document) <= MAX_DECODED_BYTES:
                return
            data = self._begin_scan()
        if self._scanner is not None:
            self._scanner.feed(data)

    def _begin_scan(self) -> bytes:
        self._scanner = Scanner(self._findings)
        data = bytes(self._document)
        self._document.clear()
        return data

    def result(self) -> Usage:
        """Return what was read; call it once, at the end."""
        if self._scanner is None:
            if decode_into(self._findings, self._document):
                self._findings.ended = True
                return self._findings.result()
            self._scanner = Scanner(self._findings)  # it was cut, or is not JSON
            self._scanner.feed(bytes(self._document))
        self._findings.ended = self._scanner.ended
        return self._findings.result()
