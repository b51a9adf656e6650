"""Frames as the page of the protocol shows them: each byte in hex, with what it means."""

import json
from collections.abc import Iterator

from .foreign import unpack_from

_WIDTH = 16  # bytes in a line
_COLUMN = 62  # where the meaning stands
_NAMES = {
    0: ("kind", "id", "method", "params"),
    1: ("kind", "id", "error", "result"),
    2: ("kind", "method", "params"),
}


def describe(frame: bytes) -> str:
    """Return the lines of a frame, in the short forms that are written here."""
    lines, end = _value(frame, 0, 0, "", _NAMES[frame[1]])
    if end != len(frame):
        raise ValueError("something is behind it")
    return "\n".join(lines)


def _value(
    data: bytes, start: int, level: int, label: str, names: tuple[str, ...] = (), key: int = 0
) -> tuple[list[str], int]:
    """Describe the value at `start`, with the key of `key` bytes before it."""
    head, at = data[start], start + 1
    if head & 0xF0 == 0x90:
        lines = list(_lines(data[start - key : at], level, f"{label}array of {head & 15}"))
        for number in range(head & 15):
            name = f"{names[number]}: " if names else ""
            inner, at = _value(data, at, level + 1, name)
            lines += inner
    elif head & 0xF0 == 0x80:
        lines = list(_lines(data[start - key : at], level, f"{label}map of {head & 15}"))
        for _ in range(head & 15):
            name, after = unpack_from(data, at)
            inner, at = _value(data, after, level + 1, f'"{name}": ', key=after - at)
            lines += inner
    else:
        value, at = unpack_from(data, start)
        meaning = "nil" if value is None else json.dumps(value)
        lines = list(_lines(data[start - key : at], level, label + meaning))
    return lines, at


def _lines(data: bytes, level: int, meaning: str) -> Iterator[str]:
    for at in range(0, len(data), _WIDTH):
        written = "  " * level + data[at : at + _WIDTH].hex(" ")
        yield f"{written:{_COLUMN}}{meaning}" if at == 0 else written
