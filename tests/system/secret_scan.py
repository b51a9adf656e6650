"""Secrets that can be told from all else, and the search for them in whatever a run left."""

from __future__ import annotations

import base64
import gc
import json
import secrets
from itertools import compress
from pathlib import Path
from urllib.parse import quote

import attrs

_RANDOM = 16  # bytes


def forms(secret: str) -> dict[str, bytes]:
    """Return the ways in which a secret could stand somewhere."""
    raw = secret.encode()
    half = secret[-24:-6].encode()  # the last four characters are shown, to tell keys apart
    found = {
        "plain": raw,
        "a part": half,
        "hex": half.hex().encode(),
        "quoted": quote(secret, safe="").encode(),
        "percents": "".join(f"%{byte:02X}" for byte in half).encode(),
        "small percents": "".join(f"%{byte:02x}" for byte in half).encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
    }
    for shift in range(3):  # base64 of it inside something longer
        text = base64.b64encode(b"\0" * shift + half)
        inner = text[4:-4]
        found[f"base64 {shift}"] = inner
        found[f"base64url {shift}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return found


@attrs.define(eq=False)
class Vault:
    """The secrets of a run, and all that was seen of it."""

    secrets: dict[str, str] = attrs.field(factory=dict)
    seen: list[tuple[str, bytes]] = attrs.field(factory=list)

    def new(self, label: str) -> str:
        """Make a secret."""
        return self.keep(label, f"sk-{label}-{secrets.token_hex(_RANDOM)}")

    def keep(self, label: str, secret: str) -> str:
        """Know a secret that somebody else made."""
        assert len(secret) > 32
        self.secrets[label] = secret
        return secret

    def see(self, where: str, what: str | bytes) -> None:
        """Take something that must hold no secret."""
        self.seen.append((where, what.encode() if isinstance(what, str) else what))

    def see_files(self, where: str, *files: Path) -> None:
        """Take whole files."""
        for file in files:
            self.see(f"{where}: {file.name}", file.read_bytes())

    def see_process(self, where: str, pid: int) -> None:
        """Take what every user of the machine sees of a process."""
        self.see(f"{where}: arguments", Path(f"/proc/{pid}/cmdline").read_bytes())

    def found(self) -> list[str]:
        """Search all that was seen for all secrets, in all their forms."""
        looked_for = [
            (label, form, text)
            for label, secret in self.secrets.items()
            for form, text in forms(secret).items()
        ]
        return sorted(
            {
                f"{label} ({form}) in {where}"
                for where, what in self.seen
                for label, form, text in looked_for
                if text in what
            }
        )


def is_in_memory(*parts: str) -> bool:
    """Return whether an object of this process holds a secret, as text or bytes.

    Args:
        parts: The pieces of the secret, so that the caller need not hold the whole of it.
    """
    gc.unfreeze()  # modules too: one of them may keep what it should not
    gc.collect()
    values = gc.get_referents(*gc.get_objects())  # some millions, so they are sorted out in C
    kinds = {kind for kind in set(map(type, values)) if issubclass(kind, (str, bytes, bytearray))}
    texts = list(compress(values, map(kinds.__contains__, map(type, values))))
    gc.freeze()  # the collections of all tests that follow would look at them
    text = "".join(parts)
    data = text.encode()
    # A plain loop: a closure would hold the secret.
    for value in dict(zip(map(id, texts), texts, strict=True)).values():
        if (text if isinstance(value, str) else data) in value:
            return True
    return False
