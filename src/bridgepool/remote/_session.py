"""Services of an application's own on a session, beside the rows.

A service has a name and a version. The follower says in its hello which it wants, and the owner
opens those that it offers in a version that serves: so a service is there at both ends or at none.
Its calls and notices are those of the session, with its name before theirs: ``clients.authorize``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import attrs

from bridgepool._snapshot import ProviderSnapshot
from bridgepool.remote._errors import RemoteError
from bridgepool.remote._rpc import Method, NoticeHandler, RpcPeer
from bridgepool.remote._versions import ProtocolVersion, parse_version

M = TypeVar("M")
R = TypeVar("R")


@attrs.frozen
class Identity:
    """Who a follower was admitted as."""

    name: str
    """For logs and receipts."""
    key_id: str = ""
    """Which of its keys it came with, so that its sessions can be ended when that is revoked."""


@attrs.frozen
class Seen:
    """The latest revision that one side has seen, and its epoch."""

    revision: int | None
    epoch: str | None

    def is_ahead_of(self, snapshot: ProviderSnapshot[Any]) -> bool:
        """Return whether a snapshot is behind this, or may be: it is of another epoch."""
        if self.revision is None or snapshot.revision is None:
            return False
        return self.epoch != snapshot.epoch or self.revision > snapshot.revision


@attrs.frozen(kw_only=True)
class SessionInfo:
    """One session of a follower, as it was when it began."""

    id: str
    """Made here, random."""
    identity: Identity
    """Who it was admitted as."""
    name: str
    """What the follower calls itself."""
    instance: str
    """Which process of that follower: another one after each start."""
    software: str
    """What it runs, such as ``bridgepool/0.2``."""
    protocol: str
    """The version that it speaks."""


@attrs.frozen(eq=False)
class ServiceSession:
    """A session, as one of its services has it. The same at both ends.

    Messages are attrs classes, of texts, numbers, `Secret` and what is made of them.
    """

    id: str
    """The session's."""
    follower: SessionInfo | None
    """At the owner: who is at the other end. None at the follower."""
    _service: str
    _rpc: RpcPeer = attrs.field(repr=False)

    def on_call(
        self, method: str, params: type[M], handle: Callable[[M], Awaitable[object]]
    ) -> None:
        """Have calls of the other end handled from now on.

        Args:
            method: Its name, without the service's.
            params: The class of what it is called with.
            handle: Returns the answer, a message. May raise `RemoteError`, which the caller
                receives; any other exception is logged, and reported as ``internal``.
        """
        self._rpc.methods[f"{self._service}.{method}"] = Method(params, handle)

    def on_notice(self, method: str, params: type[M], handle: Callable[[M], object]) -> None:
        """Have notices of the other end handled from now on; `handle` must be fast."""
        self._rpc.notices[f"{self._service}.{method}"] = NoticeHandler(params, handle)

    async def call(self, method: str, params: object, result: type[R]) -> R:
        """Call the other end, and return its answer. A checkpoint.

        Raises:
            RemoteError: The other end answered with an error.
            InvalidMessageError: Its answer is not a `result`.
            UnsendableError: The parameters cannot be encoded, or are too large.
            ConnectionLostError: There will be no answer.
        """
        return await self._rpc.call(f"{self._service}.{method}", params, result)

    async def notify(self, method: str, params: object) -> None:
        """Send a notice; waits while the other end is slow to read. A checkpoint.

        Raises:
            UnsendableError: The parameters cannot be encoded, or are too large.
            ConnectionLostError: The connection is lost.
        """
        await self._rpc.notify(f"{self._service}.{method}", params)

    def publish(self, method: str, params: object) -> None:
        """Send a notice when the other end can take it; never waits, never fails.

        One that is not sent yet is replaced: for what only the latest of counts.
        """
        self._rpc.publish(f"{self._service}.{method}", params)


class Service(Protocol):
    """Calls and notices of an application's own on each session; yours to implement."""

    @property
    def name(self) -> str:
        """Its name: what stands before the dot in the names of its methods."""
        ...

    @property
    def version(self) -> ProtocolVersion:
        """Its version. An owner serves followers of the same major, and a minor up to its own."""
        ...

    def open(self, session: ServiceSession) -> AbstractAsyncContextManager[None]:
        """Open it on a session that has just begun; closed when the session has ended.

        Register what the other end may call before the first ``await``. At the follower this is
        the place for calls that must be answered before the session counts as begun.

        When a follower ends, its services are closed before its session, without an exception, and
        may still call the owner: within 1.5 seconds, after which they are cancelled.
        """
        ...


def wanted(services: Iterable[Service]) -> dict[str, str]:
    """Return what a follower's hello says of its services."""
    return {service.name: str(service.version) for service in services}


def choose(offered: Mapping[str, Service], hello: Mapping[str, str]) -> list[Service]:
    """Return the services of a session, as its hello asks for them.

    Raises:
        RemoteError: One of them is not offered, or not in that version.
    """
    chosen = []
    for name, text in hello.items():
        service = offered.get(name)
        if service is None:
            raise RemoteError("service_unknown", f"there is no service {name[:64]!r} here")
        try:
            serves = service.version.serves(parse_version(text))
        except ValueError:
            serves = False
        if not serves:
            reason = f"the service {name!r} is of version {service.version} here"
            raise RemoteError("service_version", reason)
        chosen.append(service)
    return chosen
