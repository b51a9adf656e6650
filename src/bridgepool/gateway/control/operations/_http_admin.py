"""Operations by the API of a running control plane."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, ParamSpec, TypeVar, cast

import attrs
import httpx2
import msgspec
import trio

from bridgepool._errors import BridgePoolError
from bridgepool._network import describe_failure
from bridgepool._secret import Secret, read_secret
from bridgepool.gateway.control.operations import Operation
from bridgepool.gateway.control.operations._operation import API_HEADER, API_VERSION, PREFIX
from bridgepool.gateway.control.operations._requests import ApiErrorBody, write_request

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT: Final = 30.0


class AdminError(BridgePoolError):
    """The control plane refused, or could not be asked; says what to do.

    Args:
        code: As in its API, or ``unreachable``, or ``not_understood``.
        message: What is wrong.
        problems: Field by field, where it is about a change.
    """

    def __init__(self, code: str, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__("; ".join((message, *problems)))
        self.code = code
        self.problems: tuple[str, ...] = tuple(problems)


@attrs.frozen
class HttpAdmin:
    """An `Admin` over HTTP; made by `open_http_admin`."""

    _client: httpx2.AsyncClient

    async def do(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Admin`."""
        arguments = operation.arguments(*args, **kwargs)
        request = write_request(operation, arguments)
        wait = cast("float", arguments.get("wait", 0.0))  # the answer may take so much longer
        try:
            response = await self._client.request(
                operation.method,
                PREFIX + request.path,
                params=request.query,
                json=request.body,
                timeout=_TIMEOUT + wait,
            )
        except httpx2.HTTPError as error:
            url = self._client.base_url
            why, what = _why(error, is_encrypted=url.scheme == "https")
            raise AdminError(
                "unreachable", f"the control plane at {url} did not answer ({why}); {what}"
            ) from None
        if response.headers.get(API_HEADER) != API_VERSION:
            raise _not_understood(response)
        if response.is_success:
            return cast("T", _decode(response, operation.answer))
        refusal = _decode(response, ApiErrorBody).error
        raise AdminError(refusal.code, refusal.message, refusal.problems or ())


@asynccontextmanager
async def open_http_admin(
    url: str, key: Secret, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpAdmin]:
    """Open the API of a running control plane.

    Args:
        url: Where its API is, such as ``https://control.example:8180``.
        key: An admin key.
        ssl_context: For ``https``; the default trusts what the operating system trusts.
    """
    verify: ssl.SSLContext | bool = ssl_context if ssl_context is not None else True
    if url.startswith("http://"):  # the certificates of the system need not be loaded
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx2.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {key.reveal()}"},
        verify=verify,
        trust_env=False,  # a proxy of the environment is for the world outside
    ) as client:
        yield HttpAdmin(client)


def _why(error: httpx2.HTTPError, *, is_encrypted: bool) -> tuple[str, str]:
    """Return why there was no answer, and what to do."""
    what = "is it running, and is that its --listen address?"
    if isinstance(error, httpx2.TimeoutException):
        return "not in time", what
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | trio.BrokenResourceError):
            if isinstance(cause.__cause__, ssl.SSLCertVerificationError):
                what = "name its authority with --ca-file, or renew its certificate"
            elif isinstance(cause.__cause__, ssl.SSLError):
                what = "if it does not use TLS, the URL begins with http://"
            return describe_failure(cause), what
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.RemoteProtocolError) and not is_encrypted:
        return "no HTTP", "if it uses TLS, the URL begins with https://"
    return type(error).__name__, what


def _decode(response: httpx2.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind, dec_hook=read_secret)
    except (ValueError, RecursionError):  # msgspec's errors and those of Unicode are ValueErrors
        pass
    raise _not_understood(response)


def _not_understood(response: httpx2.Response) -> AdminError:
    where = f"{response.url.copy_with(query=None)} ({response.status_code})"
    return AdminError(
        "not_understood",
        f"{where} did not answer like a control plane of this version; is that its --listen "
        "address?",
    )
