"""A text that must not be shown: keys, tokens, and header values that may hold one."""

import hmac
from typing import Final, NoReturn, cast, final

_MASK: Final = "Secret(***)"


def require_secret(value: object, name: str) -> None:
    """Raise `TypeError` unless `value` is a `Secret`; the message does not repeat it."""
    if not isinstance(value, Secret):
        raise TypeError(
            f"{name} is a {type(value).__name__}: write Secret(...), so it is not shown"
        )


@final
class Secret:
    """Hold one secret text that is shown only by `reveal`.

    ``repr``, ``str``, ``format``, f-strings, tracebacks that print local variables and
    everything built on them (logs, attrs classes, debuggers) show ``Secret(***)``. Pickling is
    refused; copying returns the same object. Two secrets are compared in constant time.

    Args:
        value: The text; not empty.

    Raises:
        TypeError: `value` is not a ``str``. The message does not repeat it.
        ValueError: `value` is empty.
    """

    __slots__ = ("_value",)

    _value: str

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a Secret is made from a str")
        if not value:
            raise ValueError("a Secret is not empty")
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Return the text. The one way to it, so that uses can be found by name."""
        return self._value

    def _bytes(self) -> bytes:
        # Lone surrogates can come from the environment; they must neither fail here nor be
        # quoted in an encoding error.
        return self._value.encode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._bytes(), other._bytes())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __repr__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled: pickles end in files and on wires")


def read_secret(kind: type, value: object) -> object:
    """Make a secret of a text: the `dec_hook` of what msgspec decodes.

    A value of another type is returned as it is: msgspec checks it. It makes errors of its own of
    those of `Secret`.
    """
    return Secret(cast("str", value)) if kind is Secret else value
