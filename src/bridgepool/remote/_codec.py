"""Messages to bytes and back: MessagePack-RPC frames. Pure; `docs/protocol.md` describes them.

Theory of operation. A frame is decoded in two steps. First the envelope, with its parameters left
as bytes: so an unknown method, or parameters that do not fit, fail one call and not the connection.
Then the parameters, when their class is known.

Nothing is allocated because a header announces it: the classes limit counts, which are checked
before the items are read; texts are no longer than the frame; unknown fields are skipped in place.
Only for a `Secret` would msgspec build any value and convert it afterwards. So a message that may
contain one is first checked against a twin of its class that has texts in place of secrets.

Depth has no limit of our own: msgspec skips what is unknown without building it, and raises
`RecursionError` where it is nested too deep to find its end, some hundreds of levels.

No error contains a value: it might be a secret.
"""

import re
import types
from collections.abc import Hashable
from functools import cache
from typing import Annotated, Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import attrs
import msgspec

from bridgepool._secret import Secret, read_secret
from bridgepool.remote._errors import (
    FRAME_TOO_LARGE,
    INVALID_PARAMS,
    MALFORMED_FRAME,
    InvalidMessageError,
    UnsendableError,
    UnusableRowError,
)

T = TypeVar("T")

MAX_FRAME_BYTES: Final = 16 << 20
"""The largest frame that is sent or accepted."""
MAX_METHOD_CHARACTERS: Final = 64
"""The longest name of a method."""
MAX_CALL_ID: Final = (1 << 32) - 1
"""Ids of calls go from 0 to this."""

_Method = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_METHOD_CHARACTERS)]
_CallId = Annotated[int, msgspec.Meta(ge=0, le=MAX_CALL_ID)]
_NIL: Final = msgspec.Raw(b"\xc0")
# What msgspec raises for bad bytes; bad UTF-8 and deep nesting are no errors of its own.
_BAD_BYTES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a call has no result."""

    code: str
    message: str


class Request(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """A call: ``[0, id, method, [params]]``."""

    id: _CallId
    method: _Method
    params: tuple[msgspec.Raw]


class Response(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """The answer to a call: ``[1, id, error or nil, result or nil]``."""

    id: _CallId
    error: ErrorBody | None
    result: msgspec.Raw


class Notice(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """A message without an answer: ``[2, method, [params]]``."""

    method: _Method
    params: tuple[msgspec.Raw]


Frame = Request | Response | Notice


@attrs.frozen(eq=False)
class Encoded:
    """A message in its bytes, to be sent many times; made by `encode`."""

    raw: msgspec.Raw = attrs.field(repr=False)
    _notices: dict[str, bytes] = attrs.field(factory=dict, repr=False)  # frames of it, by method


class _UnknownTypeError(TypeError):
    """A value is of no type that can be sent; the text names the type alone."""


def _to_wire(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise _UnknownTypeError(f"{type(value).__name__} is not a type that can be sent")


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_to_wire)
_frames: Final = msgspec.msgpack.Decoder(Frame)


def encode(message: object) -> Encoded:
    """Return the message in its bytes.

    Raises:
        UnsendableError: It holds what cannot be sent.
    """
    if isinstance(message, Encoded):
        return message
    return Encoded(msgspec.Raw(_to_bytes(message)))


def encode_request(call_id: int, method: str, params: object) -> bytes:
    """Return the frame of a call."""
    return _to_bytes(Request(call_id, method, (encode(params).raw,)))


def encode_result(call_id: int, result: object) -> bytes:
    """Return the frame of the answer to a call."""
    return _to_bytes(Response(call_id, None, encode(result).raw))


def encode_error(call_id: int, code: str, message: str) -> bytes:
    """Return the frame of an answer that says why there is no result."""
    return _to_bytes(Response(call_id, ErrorBody(code, message), _NIL))


def encode_notice(method: str, params: object) -> bytes:
    """Return the frame of a notice."""
    encoded = encode(params)
    frame = encoded._notices.get(method)
    if frame is None:
        frame = encoded._notices[method] = _to_bytes(Notice(method, (encoded.raw,)))
    return frame


def decode_frame(data: bytes, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """Read the envelope of a frame.

    Raises:
        InvalidMessageError: It is too large, or no frame.
    """
    if len(data) > max_bytes:
        reason = f"the frame has {len(data)} bytes; the limit is {max_bytes}"
        raise InvalidMessageError(FRAME_TOO_LARGE, reason)
    try:
        frame: Frame = _frames.decode(data)
        return frame
    except _BAD_BYTES as error:
        reason = f"not a frame: {_describe(error)}"
    raise InvalidMessageError(MALFORMED_FRAME, reason)


def decode(raw: msgspec.Raw, kind: type[T]) -> T:
    """Read what a frame carries; unknown fields are ignored.

    Args:
        raw: Parameters or result of a frame.
        kind: Of which class it should be.

    Raises:
        InvalidMessageError: It does not fit the class, or is nested too deep.
    """
    readers = _readers(cast("Hashable", kind))
    try:
        if readers.check is not None:
            readers.check.decode(raw)
        message: T = readers.whole.decode(raw)
        return message
    except _BAD_BYTES as error:
        reason = f"invalid {kind.__name__}: {_describe(error)}"
    raise InvalidMessageError(INVALID_PARAMS, reason)


def _to_bytes(message: object) -> bytes:
    try:
        return _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # A lone surrogate is a ValueError that quotes the text; so only its type is reported.
        why = str(error) if isinstance(error, _UnknownTypeError) else type(error).__name__
        reason = f"a {type(message).__name__} cannot be encoded: {why}"
    raise UnsendableError(reason)


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "a text is not UTF-8"
    cause = error.__cause__  # of the class itself
    if cause is not None:
        return str(cause) if isinstance(cause, UnusableRowError) else type(cause).__name__
    # msgspec tells types and places, and two values: of an unknown kind of frame, of no enum's
    found = re.sub(r"Invalid enum value .*(?= - at `)", "unknown value", str(error), flags=re.S)
    found = re.sub(r"Invalid enum value .*", "unknown value", found, flags=re.S)
    return re.sub(r"Invalid value \S*", "unknown kind", found)


@attrs.frozen(eq=False)
class _Readers:
    """What reads messages of one class."""

    check: msgspec.msgpack.Decoder[Any] | None
    """Of its twin; None if it has no secrets."""
    whole: msgspec.msgpack.Decoder[Any]


@cache
def _readers(kind: Hashable) -> _Readers:
    twin = _twin(kind)
    return _Readers(
        None if twin is kind else msgspec.msgpack.Decoder(twin),
        msgspec.msgpack.Decoder[Any](kind, dec_hook=read_secret),
    )


@cache
def _twin(kind: Any) -> Any:
    """Return the type with texts in place of secrets; the type itself if it can hold none."""
    if kind is Secret:
        return Annotated[str, msgspec.Meta(min_length=1)]
    if attrs.has(kind):
        hints = get_type_hints(kind, include_extras=True)
        names = [field.name for field in attrs.fields(kind)]
        twins = {name: _twin(hints[name]) for name in names}
        if all(twins[name] == hints[name] for name in names):
            return kind
        optional = {f.name for f in attrs.fields(kind) if f.default is not attrs.NOTHING}
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            (name, twins[name], msgspec.UNSET) if name in optional else (name, twins[name])
            for name in names
        ]
        return msgspec.defstruct(f"_{kind.__name__}", fields, kw_only=True, gc=False)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is None:
        return kind
    if origin is Annotated:
        found = _twin(inner[0])
        return kind if found == inner[0] else Annotated[(found, *inner[1:])]
    found_inner = tuple(_twin(item) for item in inner)
    if found_inner == inner:
        return kind
    if origin in (Union, types.UnionType):
        return Union[found_inner]  # noqa: UP007 -- the members are in a tuple
    return origin[found_inner]
