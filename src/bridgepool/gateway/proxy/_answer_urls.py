"""The addresses in an upstream's JSON answers that clients call: replaced by the gateway's own.

Theory of operation. An SDK calls such an address with the key that it has, the client's gateway
key; at the upstream's address, that key would be given away. A provider type declares the fields
that hold one (`UrlField`), with the paths whose answers may have them. Only answers to those paths
are read whole, within a limit, and written anew. What cannot be read is refused: a client might
read in it what the gateway could not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bridgepool.gateway.providers import ProviderType, UrlField
from bridgepool.http import Exchange, Headers, get_header

MAX_DOCUMENT_BYTES: Final = 2 * 1024 * 1024
"""The largest answer that is read whole; the longest list of batches is about a third of it."""
_MAX_VALUES: Final = 100_000  # in it; that is five times the longest list, and takes some 50 ms
_NOT_OF_A_REWRITTEN_BODY: Final = frozenset(
    b"accept-ranges content-digest content-md5 digest etag repr-digest".split()
)
_NOT_IN_ITS_REQUEST: Final = frozenset(b"accept-encoding if-range range".split())
_host: Final = re.compile(rb"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_prefix: Final = re.compile(rb"(?:/[A-Za-z0-9._~-]+)+")


def url_fields_of(kind: ProviderType, path: bytes) -> tuple[UrlField, ...]:
    """Return the fields that an answer to this path, below the base URL, may have."""
    if not kind.url_fields:
        return ()
    return tuple([field for field in kind.url_fields if field.answers.fullmatch(path)])


def ask_for_plain_json(headers: Headers) -> Headers:
    """Return the headers of a request whose answer has to be read: whole and not compressed."""
    kept = [field for field in headers if field[0] not in _NOT_IN_ITS_REQUEST]
    return (*kept, (b"accept-encoding", b"identity"))


def headers_of_rewritten(headers: Headers) -> Headers:
    """Return the headers of an answer without those that describe the bytes of its body."""
    return tuple([field for field in headers if field[0] not in _NOT_OF_A_REWRITTEN_BODY])


def own_address(exchange: Exchange) -> str | None:
    """Return scheme, host and path where the client reached the gateway; None if it sent no host.

    X-Forwarded-Proto, -Host and -Prefix count, of the first proxy, from anybody: the answer goes
    to the one client that sent them, so nobody gains by a false claim. A proxy cannot turn https
    into http, since a client that was protected must stay so.
    """
    headers = exchange.request.headers
    claimed = {
        name: value.partition(b",")[0].strip()
        for name, value in reversed(headers)
        if name.startswith(b"x-forwarded-")
    }
    host = claimed.get(b"x-forwarded-host", b"")
    if not _host.fullmatch(host):
        host = get_header(headers, b"host") or b""
        if not _host.fullmatch(host):
            return None
    secure = exchange.scheme == "https" or claimed.get(b"x-forwarded-proto") == b"https"
    prefix = claimed.get(b"x-forwarded-prefix", b"").rstrip(b"/")
    path = (prefix if _prefix.fullmatch(prefix) else b"") + exchange.mounted_at
    return ("https://" if secure else "http://") + (host + path).decode("ascii")


def rewrite(document: bytes, fields: Iterable[UrlField], base: str | None) -> bytes:
    """Replace the addresses in a document. Pure.

    Args:
        document: JSON.
        fields: Those that its answer may have.
        base: What stands for the provider's base URL at the gateway; None if that is not known.

    Returns:
        The document, written anew: of a name that comes twice in an object, only the last stays.

    Raises:
        ValueError: It is not JSON that can be read.
    """
    root = _read(document)
    by_name = {field.name: field for field in fields}
    left = [root]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            for name in by_name.keys() & node.keys():
                if node[name] is not None:
                    node[name] = _own(node[name], by_name[name], base)
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    return msgspec.json.encode(root)


def keep_models(document: bytes, allow: Callable[[str], bool]) -> bytes:
    """Return a list of models with those that are allowed. Pure.

    Args:
        document: JSON, with objects that have an ``id`` in the list ``data``.
        allow: Returns whether a client may use a model.

    Raises:
        ValueError: It is no such list.
    """
    root = _read(document)
    try:
        if not isinstance(root["data"], list):
            raise ValueError("the answer is not a list of models")
        root["data"] = [model for model in root["data"] if allow(model["id"])]
    except (KeyError, TypeError) as error:
        raise ValueError("the answer is not a list of models") from error
    return msgspec.json.encode(root)


def _read(document: bytes) -> Any:
    # Before it is read, since nothing else runs meanwhile. Those in texts count, too.
    if sum(map(document.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise ValueError("the answer has too many values")
    try:
        return msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("the answer is not JSON") from error


def _own(value: object, field: UrlField, base: str | None) -> str | None:
    if not isinstance(value, str) or base is None:
        return None
    try:
        path = urlsplit(value).path.encode("ascii")
    except ValueError:  # also of `encode`
        return None
    ending = rb"(?=/)(?:%b)\Z" % field.leads_to.pattern
    found = re.search(ending, path, field.leads_to.flags)
    return base + found[0].decode("ascii") if found is not None else None
