"""Providers, clients and gateway keys that live in this process, served to gateways elsewhere."""

import secrets
from collections.abc import Iterable
from functools import partial

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._secret import Secret
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway.control._records import GatewayKey
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.providers import Caller, Clients
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS, parse_hash, token_bytes
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import Identity


@attrs.define(eq=False)
class MemoryBackend:
    """A `GatewayBackend` without a store: what you set is what gateways get, at once.

    For a program that has its providers from somewhere of its own, and for tests. Nothing
    outlives the process: its revisions are of an epoch of their own.

    ::

        backend = MemoryBackend()
        key = backend.add_gateway_key("front-1")
        backend.set_rows([ProviderRow(id="1", name="openai", type="openai", base_url="https://…")])

    Args:
        first_revision: The revision to begin with.
        epoch: The history that revisions count in; random by default.
    """

    first_revision: int = 1
    epoch: str = attrs.field(factory=partial(secrets.token_hex, 8), kw_only=True)
    _revisions: Revisions = attrs.field(init=False)
    _rows: tuple[ProviderRow, ...] = attrs.field(default=(), init=False)
    _allow_empty: bool = attrs.field(default=False, init=False)
    _clients: Clients = attrs.field(factory=Clients, init=False)
    _keys: dict[str, GatewayKey] = attrs.field(factory=dict, init=False)  # by the key's id
    _changed: ChangeBus = attrs.field(factory=ChangeBus, init=False)

    @_revisions.default
    def _first(self) -> Revisions:
        first = self.first_revision
        return Revisions(revision=first, providers=first, clients=first, epoch=self.epoch)

    def set_rows(self, rows: Iterable[ProviderRow], *, allow_empty: bool = False) -> int:
        """Set the providers; return the revision at which they are in force.

        Args:
            rows: All of them.
            allow_empty: If there are none, that is intended; else gateways refuse it.
        """
        fresh = (tuple(rows), allow_empty)
        if fresh != (self._rows, self._allow_empty):
            self._rows, self._allow_empty = fresh
            self._move("providers")
        return self._revisions.revision

    def set_clients(self, clients: Clients) -> int:
        """Set who may use the gateways; return the revision at which that is in force."""
        if clients != self._clients:
            self._clients = clients
            self._move("clients")
        return self._revisions.revision

    def add_gateway_key(self, name: str) -> Secret:
        """Make a key for the gateway of that name. It is not kept: this is the time to note it."""
        key = GATEWAY_KEYS.new()
        hashed = parse_hash(GATEWAY_KEYS.hash(key))
        self._keys[hashed.key_id] = GatewayKey(Identity(name, hashed.key_id), hashed)
        return key

    def revoke_gateway_key(self, key_id: str) -> int:
        """Revoke a key, which ends its sessions; return the revision after it.

        Raises:
            KeyError: There is no such key.
        """
        del self._keys[key_id]
        self._move()
        return self._revisions.revision

    def _move(self, *kinds: str) -> None:
        last, following = self._revisions, self._revisions.revision + 1
        self._revisions = Revisions(
            revision=following,
            providers=following if "providers" in kinds else last.providers,
            clients=following if "clients" in kinds else last.clients,
            epoch=self.epoch,
        )
        self._changed.publish()

    # -- what `open_gateway_service` asks

    @property
    def revisions(self) -> Revisions:
        """The revisions in force."""
        return self._revisions

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that `revisions` moved."""
        return self._changed.subscribe()

    async def reload(self) -> ProviderSnapshot[ProviderRow]:
        """Return what is set. A checkpoint."""
        await trio.lowlevel.checkpoint()
        return ProviderSnapshot(
            self._rows, self._revisions.revision, self.epoch, allow_empty=self._allow_empty
        )

    async def catch_up(self, seen: Revisions) -> Revisions:
        """Return the revisions in force. A checkpoint."""
        await trio.lowlevel.checkpoint()
        return self._revisions

    async def authorize(self, token: Secret) -> Caller | None:
        """Return whose key this is. A checkpoint."""
        await trio.lowlevel.checkpoint()
        return self._clients.authenticate(token_bytes(token))

    async def admit(self, key: Secret) -> Identity | None:
        """Return which gateway's key this is. A checkpoint."""
        await trio.lowlevel.checkpoint()
        token = token_bytes(key)
        key_id = GATEWAY_KEYS.id_of(token)
        found = self._keys.get(key_id.decode("ascii")) if key_id is not None else None
        if found is None or not found.hash.matches(token):
            return None
        return found.identity

    async def note_refused(self, peer: str) -> None:
        """Note nothing. A checkpoint."""
        await trio.lowlevel.checkpoint()

    def is_live(self, key_id: str) -> bool:
        """Return whether a gateway key is still valid."""
        return key_id in self._keys
