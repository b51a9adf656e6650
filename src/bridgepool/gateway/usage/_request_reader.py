"""The model that a request asks for, read in its body. Pure.

A reader gets the bytes of a body after they have gone to the upstream. Bodies come from clients, so
the work on one is bounded: what would take more is not known. Rules on models do not rely on it.
"""

from __future__ import annotations

import re
from typing import Final

import attrs
import msgspec

from bridgepool.gateway.providers import Headers, UsageFields
from bridgepool.gateway.usage._scanner import Scanner
from bridgepool.gateway.usage._tokens import Findings, kept_text
from bridgepool.http import get_header

_MAX_DECODED: Final = 64 * 1024  # bytes of a whole body; others are scanned
_MAX_STEPS: Final = 20_000
_FIELDS: Final = UsageFields(answers=re.compile(rb"(?!)"), model=("model",))
_MESSAGE_FIELDS: Final = UsageFields(
    answers=re.compile(rb"(?!)"), model=("model", "response.model")
)


@attrs.frozen
class _Asked:
    model: str = ""


_decode: Final = msgspec.json.Decoder(_Asked).decode


@attrs.define(eq=False)
class RequestReader:
    """Reads the model in one request body.

    Args:
        body: The whole body, if it is not fed in pieces. It is read at the end.
        in_message: It is a message of a websocket, which may hold the request as `response`.
    """

    _body: bytes | None = None
    _in_message: bool = attrs.field(default=False, kw_only=True)
    _scanner: Scanner | None = attrs.field(default=None, init=False)

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body. Does not raise."""
        if self._scanner is None:
            fields = _MESSAGE_FIELDS if self._in_message else _FIELDS
            self._scanner = Scanner(Findings(fields), _MAX_STEPS)
        if not self._scanner.findings.text("model"):
            self._scanner.feed(data)

    def result(self) -> str:
        """Return the model; empty if it is not known. Call it once, at the end."""
        body, self._body = self._body, None
        if body is not None:
            if len(body) <= _MAX_DECODED:
                return _model_in(body)
            self.feed(body)
        return "" if self._scanner is None else self._scanner.findings.text("model")


def _model_in(body: bytes) -> str:
    try:
        return kept_text(_decode(body).model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def content_form(headers: Headers) -> tuple[bytes, bytes]:
    """Return the media type of a body, and its encoding; empty if they are not given."""
    kind = get_header(headers, b"content-type") or b""
    encoding = get_header(headers, b"content-encoding") or b""
    return kind.partition(b";")[0].strip().lower(), encoding.strip().lower()


def is_plain_json(headers: Headers) -> bool:
    """Return whether the body of a request with these fields can be read."""
    kind, encoding = content_form(headers)
    return kind in (b"", b"application/json") and encoding in (b"", b"identity")
