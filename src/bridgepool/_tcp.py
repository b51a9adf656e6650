"""TCP connections to a host, however slowly its name resolves.

Theory of operation. Looking a name up blocks a thread, for half a minute or more when the name
servers do not answer. So each `TcpConnector` has at most one look-up running, which all its callers
share. The thread is taken from no limiter, so other names and other work never wait behind it.

    addresses known:  wait for the look-up for `_RESPONSE_TIMER` after its beginning, then use them
    none known:       wait for the look-up

The last good addresses are also used after a look-up that failed for the moment, up to `_MAX_AGE`;
not when the name servers say that there is no such name.
"""

import contextlib
import logging
import socket
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Final

import attrs
import outcome
import trio

_log = logging.getLogger("bridgepool.http")

# The client response timer of RFC 8767, section 5, and its maximum stale timer.
_RESPONSE_TIMER: Final = 1.8
_MAX_AGE: Final = 86_400.0
_NEXT_ADDRESS_AFTER: Final = 0.25  # RFC 8305, section 5
_NO_SUCH_NAME: Final = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
}


@attrs.define(eq=False)
class _LookUp:
    """One look-up of the name."""

    began: float
    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


@attrs.define(eq=False)
class TcpConnector:
    """Opens TCP connections to one host and port."""

    _host: str
    _port: int
    _addresses: tuple[str, ...] = attrs.field(default=(), init=False)  # the last good ones
    _confirmed: float = attrs.field(default=-inf, init=False)  # on Trio's clock
    _running: _LookUp | None = attrs.field(default=None, init=False)
    _stale: bool = attrs.field(default=False, init=False)  # old addresses are used: reported

    async def open(self) -> trio.SocketStream:
        """Connect, to the addresses in their order until one answers.

        Raises:
            OSError: The name cannot be looked up, or no address can be reached.
        """
        return await _connect_to_any(await self._resolve(), self._port)

    async def _resolve(self) -> Sequence[str]:
        if numeric := _numeric_host(self._host):
            return numeric
        if _has_own_resolver():
            found = await trio.socket.getaddrinfo(
                self._host, self._port, type=trio.socket.SOCK_STREAM
            )
            return [str(address[0]) for *_, address in found]
        look_up = self._running or self._begin()
        usable = bool(self._addresses) and trio.current_time() < self._confirmed + _MAX_AGE
        with trio.move_on_at(look_up.began + _RESPONSE_TIMER if usable else inf):
            await look_up.done.wait()
        error = look_up.error
        final = isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME
        if error is not None and (final or not usable):
            raise OSError(f"its name cannot be looked up: {error.args[-1]}") from None
        if look_up.done.is_set() and error is None:
            self._stale = False
        elif not self._stale:
            self._stale = True
            _log.warning(
                "name of an upstream cannot be looked up; using its last addresses",
                extra={"host": self._host},
            )
        return self._addresses

    def _begin(self) -> _LookUp:
        look_up = self._running = _LookUp(trio.current_time())
        token = trio.lowlevel.current_trio_token()

        def deliver(result: outcome.Outcome[tuple[str, ...]]) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._end, look_up, result)

        find = partial(_find_addresses, self._host, self._port)
        trio.lowlevel.start_thread_soon(find, deliver, name=f"look-up of {self._host}")
        return look_up

    def _end(self, look_up: _LookUp, result: outcome.Outcome[tuple[str, ...]]) -> None:
        self._running = None
        try:
            self._addresses, self._confirmed = result.unwrap(), look_up.began
        except Exception as error:
            look_up.error = error.with_traceback(None)  # which would lead back to the look-up
        look_up.done.set()


def _numeric_host(host: str) -> tuple[str, ...]:
    """Return the address of a host that is one; empty for a name."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return ()
    return (str(found[0][-1][0]),)


def _has_own_resolver() -> bool:
    """Return whether the program looks names up itself."""
    resolver = trio.socket.set_custom_hostname_resolver(None)
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver is not None


def _find_addresses(host: str, port: int) -> tuple[str, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return _in_order([str(address[0]) for *_, address in found])


def _in_order(addresses: Sequence[str]) -> tuple[str, ...]:
    """Put an address of the other family second: a whole family may be unreachable."""
    first, *rest = dict.fromkeys(addresses)
    others = [address for address in rest if (":" in address) != (":" in first)]
    return tuple(dict.fromkeys((first, *others[:1], *rest)))


async def _connect_to_any(addresses: Sequence[str], port: int) -> trio.SocketStream:
    """Connect to the first address that answers; each is tried a moment after the one before."""
    if len(addresses) == 1:
        return await trio.open_tcp_stream(addresses[0], port)
    errors: list[Exception] = []
    winner: trio.SocketStream | None = None

    async def attempt(address: str, failed: trio.Event) -> None:
        nonlocal winner
        try:
            stream = await trio.open_tcp_stream(address, port)
        except OSError as error:
            cause = error.__cause__
            errors.extend(cause.exceptions if isinstance(cause, ExceptionGroup) else (error,))
            failed.set()
            return
        if winner is None:
            winner = stream
            nursery.cancel_scope.cancel()
        else:
            await trio.aclose_forcefully(stream)

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(_NEXT_ADDRESS_AFTER):
                    await failed.wait()
    except BaseException:
        if winner is not None:
            await trio.aclose_forcefully(winner)
        raise
    if winner is None:
        problem = "no address can be reached"
        raise OSError(problem) from ExceptionGroup(problem, errors)
    return winner
