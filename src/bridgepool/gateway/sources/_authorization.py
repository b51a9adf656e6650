"""Whose key a client sent, as the control plane says: asked once, remembered by a hash.

Theory of operation. An answer is kept under the SHA-256 of the token, with the *clients revision*
it was true at, and the time of the question. It is used without asking while it is fresh: not
older than `fresh_for`, given on this session, and no later clients revision has been heard of. So a
key that was revoked is asked about again as soon as its notice arrives.

    no answer kept, or a stale one ── asked ──▶ answered: keep it, use it
                                       │
                                       └─▶ no session, no answer in time, an error, or an answer
                                           older than what was known when it was asked for:
                                           a known client is served on its stale answer until
                                           `hard_limit`; of others it cannot be said whose the
                                           key is (`AuthorizationUnavailableError`, never None)

Within an epoch revisions never go back here: the answer of a control plane that is behind what has
been heard of could be from before a revocation. With a new epoch (the store went back to an earlier
state) everything is forgotten. All times are Trio's clock, so setting the machine's clock
back makes nothing last longer.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from functools import partial
from math import inf
from typing import Final

import attrs
import trio

from bridgepool import BuildError, PoolClosedError, VersionedSingleflight
from bridgepool._options import count, positive_seconds, seconds
from bridgepool._secret import Secret
from bridgepool.gateway._protocol import Authorization, WatchClients
from bridgepool.gateway.providers import AuthorizationUnavailableError, Caller, ClientRules
from bridgepool.gateway.providers._client_rules import NO_RULES
from bridgepool.gateway.sources._limit_leases import LimitLeases

logger = logging.getLogger("bridgepool.gateway")
# A key of any store of ours is much shorter; what is longer is nobody's, and is not sent.
_LONGEST_TOKEN: Final = 512
_MAX_EPOCHS: Final = 3  # that may begin while one question is asked

Ask = Callable[[Secret], Awaitable[Authorization]]
"""Asks the control plane. Whatever it raises means that there is no answer."""


@attrs.frozen(kw_only=True)
class AuthorizationLimits:
    """For how long answers about clients' keys are used, and how many are kept."""

    fresh_for: float = attrs.field(default=60.0, validator=seconds)
    """Seconds for which an answer is used without asking, while no client has changed."""
    hard_limit: float = attrs.field(default=86400.0, validator=seconds)
    """Seconds after the last confirmation for which a known client is served while the control
    plane cannot be asked."""
    unknown_for: float = attrs.field(default=5.0, validator=seconds)
    """Seconds for which the answer that a key is unknown is used without asking."""
    patience: float = attrs.field(default=2.0, validator=positive_seconds)
    """Seconds that the request of an unknown client waits for an answer at most."""
    known_patience: float = attrs.field(default=0.5, validator=positive_seconds)
    """Seconds that the request of a client with a stale answer waits for a fresh one."""
    retry_after: float = attrs.field(default=1.0, validator=seconds)
    """Seconds without questions after one had no answer, unless a new session begins; also
    the `Retry-After` of clients."""
    answer_timeout: float = attrs.field(default=10.0, validator=positive_seconds)
    """Seconds after which a question without an answer is given up."""
    max_known: int = attrs.field(default=20_000, validator=count)
    """Keys of clients that are remembered, about 300 bytes each."""
    max_unknown: int = attrs.field(default=1_000, validator=count)
    """Unknown keys that are remembered."""
    max_questions: int = attrs.field(default=16, validator=count)
    """Questions at a time about keys that are not known to be a client's."""


@attrs.frozen
class KnownClient:
    """A client's key that was valid when it was verified last, to be stored elsewhere."""

    digest: bytes = attrs.field(repr=False)
    """The SHA-256 of the key, of which nothing can be guessed: a key is 256 random bits."""
    client_id: str
    key_id: str
    age: float
    """Seconds since that was confirmed."""
    rules: ClientRules = NO_RULES
    key_rules: ClientRules = NO_RULES


@attrs.frozen
class _Answer:
    caller: Caller | None
    clients: int  # the clients revision at which it was true
    confirmed: float  # when it was asked for
    session: int  # on which it was asked for


class _BehindError(Exception):
    """The answer is older than what had been heard of when it was asked for."""


@attrs.define(eq=False)
class RemoteClients:
    """The clients of a control plane; an `Authorizer`. See `open_control_plane`."""

    has_clients = True
    """The control plane knows the clients, and an empty list lets nobody in."""
    # shares one question among all who wait for it
    _flights: VersionedSingleflight
    _limits: AuthorizationLimits
    _places: trio.CapacityLimiter = attrs.field(init=False)
    # SHA-256 of the token -> the answer, by the time of confirmation, the oldest first
    _known: dict[bytes, _Answer] = attrs.field(factory=dict, init=False)
    _unknown: dict[bytes, _Answer] = attrs.field(factory=dict, init=False)
    # the latest clients revision heard of, and its epoch
    _clients: int = attrs.field(default=0, init=False)
    _epoch: str | None = attrs.field(default=None, init=False)
    _quiet_until: float = attrs.field(default=-inf, init=False)
    _ask: Ask | None = attrs.field(default=None, init=False)  # None without a session
    _session: int = attrs.field(default=0, init=False)  # the number of the last one
    # their limits, which hold over all gateways of the control plane
    _leases: LimitLeases = attrs.field(factory=LimitLeases, init=False)
    changes: int = attrs.field(default=0, init=False)
    """How often a client's key became known, or was known no more."""

    @_places.default
    def _make_places(self) -> trio.CapacityLimiter:
        return trio.CapacityLimiter(self._limits.max_questions)

    def _note_clients(self, revision: int, epoch: str | None = None) -> None:
        """Hear of a clients revision; a later one than before makes every answer stale.

        Revisions of another epoch do not compare: nothing that was known before holds.
        """
        if epoch != self._epoch:
            self._epoch, self._clients = epoch, revision
            self.changes += len(self._known)
            self._known.clear()
            self._unknown.clear()
        self._clients = max(self._clients, revision)

    def _seen(self) -> WatchClients:
        return WatchClients(self._clients or None, self._epoch)

    def _note_session(self, ask: Ask | None) -> None:
        """Note that a session has begun, on which the control plane is asked; or, None, ended.

        What was answered on earlier sessions is stale: meanwhile the store may have gone back and
        come to the same revision by other changes.
        """
        self._ask = ask
        self._session += ask is not None
        self._quiet_until = -inf

    def known_clients(self) -> tuple[KnownClient, ...]:
        """Return the clients' keys that are remembered, by hash, to be kept over a restart.

        The longest confirmed comes first.
        """
        now = trio.current_time()
        return tuple(
            KnownClient(
                digest,
                answer.caller.client_id,
                answer.caller.key_id,
                now - answer.confirmed,
                answer.caller.rules,
                answer.caller.key_rules,
            )
            for digest, answer in self._known.items()
            if answer.caller is not None
        )

    def remember_clients(self, clients: Iterable[KnownClient], *, epoch: str | None = None) -> None:
        """Take what `known_clients` gave before a restart, as stale answers.

        So each of them is asked about as soon as that can be done, and until then is served up
        to `hard_limit` after its confirmation.

        Args:
            clients: Who was known.
            epoch: In which epoch of the control plane's store.
        """
        now = trio.current_time()
        self._epoch = epoch
        for client in clients:
            if client.digest not in self._known:
                caller = Caller(client.client_id, client.key_id, client.rules, client.key_rules)
                self._keep(client.digest, _Answer(caller, -1, now - client.age, -1))

    async def authorize(self, token: bytes) -> Caller | None:
        """Return the client that has this key; None if it is unknown.

        Not a checkpoint when a fresh answer is cached. See `AuthorizationLimits`.

        Args:
            token: The key as the client sent it; any bytes.

        Raises:
            AuthorizationUnavailableError: It is not known, and cannot be asked now.
        """
        digest = hashlib.sha256(token).digest()
        now = trio.current_time()
        known = self._known.get(digest)
        if known is not None and self._is_fresh(known, now, self._limits.fresh_for):
            return known.caller
        unknown = self._unknown.get(digest)
        if unknown is not None and self._is_fresh(unknown, now, self._limits.unknown_for):
            return None
        secret = _as_secret(token)
        if secret is None:
            return None
        return await self._find_out(secret, digest, now)

    def _is_fresh(self, answer: _Answer, now: float, fresh_for: float) -> bool:
        is_current = answer.session == self._session and answer.clients >= self._clients
        return is_current and now < answer.confirmed + fresh_for

    async def _find_out(self, token: Secret, digest: bytes, now: float) -> Caller | None:
        limits = self._limits
        if self._ask is not None and now >= self._quiet_until:
            known = digest in self._known
            with trio.move_on_after(limits.known_patience if known else limits.patience):
                answer = await self._answer_of_one_epoch(token, digest)
                if answer is not None:
                    return answer.caller
            self._quiet_until = trio.current_time() + limits.retry_after
        else:
            await trio.lowlevel.checkpoint()
        # Looked up now: what came of other questions meanwhile counts.
        stale = self._known.get(digest)
        if stale is not None and trio.current_time() < stale.confirmed + limits.hard_limit:
            return stale.caller
        raise AuthorizationUnavailableError(limits.retry_after)

    async def _answer_of_one_epoch(self, token: Secret, digest: bytes) -> _Answer | None:
        """Ask, and again if a new epoch began meanwhile; None without an answer."""
        for _ in range(_MAX_EPOCHS):
            epoch, clients = self._epoch, self._clients
            fn = partial(self._question, token, digest, epoch, clients)
            try:
                return await self._flights.do(digest, (self._session, epoch, clients), fn)
            except PoolClosedError:
                return None
            except BuildError as error:
                why = type(error.__cause__ or error).__name__
                logger.debug("client key not verified: %s", why)
                if epoch == self._epoch:
                    return None
        return None

    async def _question(
        self, token: Secret, digest: bytes, epoch: str | None, clients: int
    ) -> _Answer:
        asked, session = trio.current_time(), self._session
        if self._ask is None:
            raise trio.ClosedResourceError
        # Whoever tries keys keeps nobody waiting whose key is known.
        place = nullcontext() if digest in self._known else self._places
        with trio.fail_after(self._limits.answer_timeout):
            async with place:
                answer = await self._ask(token)
        revision = answer.clients
        if answer.epoch != self._epoch or (epoch == self._epoch and revision < clients):
            raise _BehindError
        self._note_clients(revision, answer.epoch)
        found = _Answer(answer.caller(), revision, asked, session)
        self._keep(digest, found)
        return found

    def _keep(self, digest: bytes, answer: _Answer) -> None:
        kept = self._known.get(digest) or self._unknown.get(digest)
        order = (answer.session, answer.clients)
        if kept is not None and (kept.session, kept.clients) > order:
            return  # a question that was asked later was answered sooner
        self.changes += (kept.caller if kept is not None else None) != answer.caller
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        if answer.caller is None:
            into, room = self._unknown, self._limits.max_unknown
        else:
            into, room = self._known, self._limits.max_known
        into[digest] = answer
        if len(into) > room:
            del into[next(iter(into))]


def _as_secret(token: bytes) -> Secret | None:
    """Return the token as it is sent to the control plane; None if it cannot be a key."""
    if not 0 < len(token) <= _LONGEST_TOKEN:
        return None
    if not all(0x21 <= byte <= 0x7E for byte in token):
        return None
    return Secret(token.decode("ascii"))
