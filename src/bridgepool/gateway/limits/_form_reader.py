"""Reads which model a form in a request body names (`multipart/form-data`). Pure.

As in `_model_reader`, the gateway and the upstream have to find the same model, and parsers of
forms differ more than those of JSON. So this takes only the form that clients' libraries write, and
refuses everything that two parsers could read differently: text outside of the parts, the boundary
anywhere else, other fields of parts than the two usual ones, names and file names with characters
that some parsers decode, split at, or take for quotes.
"""

from __future__ import annotations

import re
from typing import Final

from bridgepool.gateway.limits._model_reader import AmbiguousBodyError

MODEL_FIELD: Final = "model"
_TYPE: Final = re.compile(rb"(?i:multipart/form-data); *boundary=([A-Za-z0-9_-]{6,70})")
_NAME: Final = rb"[A-Za-z0-9_.\[\]-]{1,100}"
_DISPOSITION: Final = re.compile(
    rb"form-data; ?name=(?:\"(" + _NAME + rb")\"|([A-Za-z0-9_-]{1,100}))"
    rb"(; ?filename=\"[^\x00-\x1f\x7f\"\\;=]*\")?"
)
_FIELD: Final = re.compile(rb"([A-Za-z-]+): ?([^\x00-\x1f\x7f]*)")
_MODEL_TYPES: Final = (b"text/plain", b"text/plain; charset=utf-8")
_MODEL: Final = re.compile(rb"[!-~](?:[ -~]{0,510}[!-~])?")
_MAX_HEAD: Final = 2048  # bytes of the fields of one part
_MAX_PARTS: Final = 200


def find_boundary(content_type: bytes) -> bytes | None:
    """Return the boundary of a form; None if it is none, or not one that can be read."""
    found = _TYPE.fullmatch(content_type.strip(b" \t"))
    return None if found is None else found[1]


def read_form(data: bytes, boundary: bytes) -> tuple[str, ...]:
    """Return the model that a form names, if it names one.

    Args:
        data: The whole body.
        boundary: As `find_boundary` has found it.

    Raises:
        AmbiguousBodyError: It is not certain which model the form names.
    """
    models: list[str] = []
    delimiter = b"--" + boundary
    if not data.startswith(delimiter):
        raise AmbiguousBodyError("its form does not begin with the boundary")
    at = len(delimiter)
    for _ in range(_MAX_PARTS):
        rest = data[at : at + 5]
        if rest in (b"--", b"--\r\n"):
            return tuple(models)
        end = data.find(delimiter, at)
        if not rest.startswith(b"\r\n") or end < at + 4 or data[end - 2 : end] != b"\r\n":
            raise AmbiguousBodyError("the boundary of its form stands where no part ends")
        model = _read_part(data, at + 2, end - 2)
        if model is not None:
            models.append(model)
        if len(models) > 1:
            raise AmbiguousBodyError(f"its form has the field {MODEL_FIELD!r} twice")
        at = end + len(delimiter)
    raise AmbiguousBodyError("its form has too many parts")


def _read_part(data: bytes, start: int, end: int) -> str | None:
    """Return the model, if the part is that."""
    head_end = data.find(b"\r\n\r\n", start, min(end, start + _MAX_HEAD))
    if head_end < 0:
        raise AmbiguousBodyError("its form has a part without an end of its fields")
    fields: dict[bytes, bytes] = {}
    for line in data[start:head_end].split(b"\r\n"):
        found = _FIELD.fullmatch(line)
        name = found[1].lower() if found is not None else b""
        if found is None or name in fields:
            raise AmbiguousBodyError("its form has a part whose fields are malformed")
        if name not in (b"content-disposition", b"content-type"):
            raise AmbiguousBodyError("its form has a part with an unusual field")
        fields[name] = found[2]
    kind = fields.get(b"content-type", b"text/plain").lower()
    if kind.startswith((b"multipart/", b"message/")):
        raise AmbiguousBodyError("its form has a part that is made of parts")
    disposition = _DISPOSITION.fullmatch(fields.get(b"content-disposition", b""))
    if disposition is None or not _is_utf8(disposition[0]):
        raise AmbiguousBodyError("its form has a part with an unusual content-disposition")
    part = (disposition[1] or disposition[2]).decode("ascii")
    if part == "_charset_":
        raise AmbiguousBodyError("its form names a charset")
    if part != MODEL_FIELD:
        if re.sub("[^a-z]", "", re.split(r"[\[.]", part.lower())[0]) == MODEL_FIELD:
            raise AmbiguousBodyError(f"its form has {MODEL_FIELD!r} in another spelling")
        return None
    if disposition[3] is not None or kind not in _MODEL_TYPES:
        raise AmbiguousBodyError("its form has another kind of value for a model than plain text")
    value = data[head_end + 4 : end]
    if not _MODEL.fullmatch(value):
        raise AmbiguousBodyError("it names a model with characters that no model has")
    return value.decode("ascii")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
