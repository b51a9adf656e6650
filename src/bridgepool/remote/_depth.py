"""How deep MessagePack is nested, and how much is in it. Pure, without recursion, builds nothing.

The forms are those of https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from typing import Final

_ALONE: Final = (
    dict.fromkeys([*range(0x80), *range(0xC0, 0xC4), *range(0xE0, 0x100)], 1)
    | {0xA0 + size: 1 + size for size in range(32)}
    | dict.fromkeys([0xCC, 0xD0], 2)
    | dict.fromkeys([0xCD, 0xD1, 0xD4], 3)
    | dict.fromkeys([0xCA, 0xCE, 0xD2], 5)
    | dict.fromkeys([0xCB, 0xCF, 0xD3], 9)
    | {0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
)
# By the first byte: bytes of the whole value, where that byte alone tells them, else 0.
_WHOLE: Final = tuple(_ALONE.get(head, 0) for head in range(256))
# First byte -> bytes of the length behind it, and of what stands before the data.
_DATA: Final = {0xC4: (1, 2), 0xC5: (2, 3), 0xC6: (4, 5)}
_EXTENSIONS: Final = {0xC7: (1, 3), 0xC8: (2, 4), 0xC9: (4, 6)}  # their type stands there
_SIZED: Final = _DATA | _EXTENSIONS | {0xD9: (1, 2), 0xDA: (2, 3), 0xDB: (4, 5)}
# First byte -> bytes of the count behind it, and values that belong together.
_COUNTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def find_excess(data: bytes | memoryview, most_levels: int, most_values: int) -> str | None:
    """Say what is too much in one value of MessagePack; None if nothing is.

    Some 0.1 to 0.3 µs for each value in it, until the first that is too many or too deep.

    Args:
        data: Known to be well-formed. Of other bytes nothing is said that could be relied on.
        most_levels: How many arrays and maps may be in one another.
        most_values: How many values there may be, keys and what holds others included.
    """
    at, size = 0, len(data)
    left = 1  # values still to come in the innermost array or map
    outer: list[int] = []  # the same of those around it
    seen = 0
    while at < size:
        head = data[at]
        left -= 1
        seen += 1
        if seen > most_values:
            return f"it has more than {most_values} values"
        if whole := _WHOLE[head]:
            at += whole
        elif (form := _SIZED.get(head)) is not None:
            at += form[1] + int.from_bytes(data[at + 1 : at + 1 + form[0]], "big")
        else:
            if len(outer) == most_levels:
                return f"it is nested deeper than {most_levels} levels"
            outer.append(left)
            if (form := _COUNTED.get(head)) is not None:
                left = form[1] * int.from_bytes(data[at + 1 : at + 1 + form[0]], "big")
                at += 1 + form[0]
            else:
                left = (head & 15) * (1 if head >= 0x90 else 2)
                at += 1
        while not left:
            if not outer:
                return None
            left = outer.pop()
    return None
