"""Provider files for tests, written as an editor writes them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bridgepool.gateway.commands._programs import client_row


def provider(name: str, kind: str, url: str, key: str = "sk-central", **fields: object) -> str:
    """Return one `[[providers]]` row; the simulated upstreams are on loopback."""
    lines = [
        "[[providers]]",
        f'name = "{name}"',
        f'type = "{kind}"',
        f'base_url = "{url}"',
        "allow_private = true",
    ]
    if not {"keys", "key_env", "client_keys"} & fields.keys():
        lines.append(f'keys = ["{key}"]')
    for field, value in fields.items():
        plain = isinstance(value, bool | int | float | list)
        shown = json.dumps(value) if plain else f'"{value}"'
        lines.append(f"{field} = {shown}")
    return "\n".join(lines)


def client_row_and_key(client: str) -> tuple[str, str]:
    """Return a `[[clients]]` row and the key that it is for."""
    row, key = client_row(client)
    return row, key.reveal()


def write(path: Path, *rows: str) -> None:
    """Put the rows in the file's place in one step."""
    draft = path.with_suffix(".draft")
    draft.write_text("\n\n".join(rows) + "\n")
    os.utime(draft, (1, 1))  # else its write and its rename can fall into one tick of the clock
    os.replace(draft, path)
