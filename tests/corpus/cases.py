"""A case of the corpus: raw bytes of one exchange, and what has to become of them."""

from __future__ import annotations

from typing import Literal

import attrs

TOKEN = b"@TOKEN@."
"""Stands for the token of the exchange, which is as long: lengths stay as they are written."""
Outcome = Literal["forwarded", "refused", "broken"]


def token(number: int) -> bytes:
    """Return the token of an exchange."""
    return b"T%06dT" % number


@attrs.frozen
class Case:
    """One raw message, marked with `TOKEN`."""

    kind: str
    name: str
    raw: bytes
    outcome: Outcome
    """`forwarded`: as exactly one message (or `messages`). `refused`: not at all. `broken`:
    refused, or visibly cut where its beginning had gone on."""
    messages: int = 1
    """How many messages it has, if they are good."""
    complete: bool = True
    """It can be answered without more bytes; otherwise the sender leaves."""
    late_fault: bool = False
    """The head is good, so an upstream that reads no body may answer before the fault shows."""
    late: bytes = b""
    """Sent by an upstream when the bytes of the next request come: at the worst moment."""
    idle: bytes = b""
    """Sent by an upstream when the exchange is over, before the next request."""
    method: str = "POST"
    """Of the request that a raw answer is for."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"

    def marked(self, mark: bytes) -> bytes:
        """Return the bytes with a token in them."""
        return self.raw.replace(TOKEN, mark)


def shown(data: bytes) -> str:
    """Return bytes as a name, shortened."""
    return repr(data)[2:-1][:60]
