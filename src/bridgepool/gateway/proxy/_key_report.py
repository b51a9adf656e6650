"""Reports of what the gateway does with its providers' keys, for operators and the source.

A key may be used as long as the provider in force has it, or a form of the provider that had it is
still open for requests that began before the change. So a key that a report calls neither usable
nor in flight, made when the revision that took it out was in force, is never used again by this
gateway, unless it comes back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import attrs
import trio

from bridgepool.gateway.providers._key_fingerprint import fingerprint
from bridgepool.gateway.providers._key_status import MAX_REPORTED_KEYS, KeyReport, KeyStatus
from bridgepool.gateway.proxy._runtimes import Runtimes
from bridgepool.gateway.upstreams._key_pool import KeyState


@attrs.define(eq=False)
class KeyReporter:
    """Makes the reports of a gateway."""

    _runtimes: Runtimes
    _revision: int | None = None
    _epoch: str | None = None

    def note(self, revision: int | None, epoch: str | None) -> None:
        """Note that a revision of the source is in force."""
        self._revision, self._epoch = revision, epoch

    def report(self) -> KeyReport:
        """Return the report of now. Cheap: a few microseconds for each key that was used."""
        keys = tuple(islice(self.statuses(), MAX_REPORTED_KEYS))
        return KeyReport(revision=self._revision, epoch=self._epoch, keys=keys)

    def statuses(self) -> Iterator[KeyStatus]:
        """Return the status of each key whose provider has been used, by provider."""
        now = trio.current_time()
        serving = {provider.name: provider for provider in self._runtimes.serving()}
        for name, state in self._runtimes.states.items():
            open_rings = state.keys.rings
            usable = {key.state.fingerprint for ring in open_rings for key in ring.keys}
            if name in serving:  # it may be opened by the next request
                usable |= {fingerprint(key) for key in serving[name].keys}
            for key in state.keys.states.values():
                yield _status(name, key, now, usable=key.fingerprint in usable)


def _status(provider: str, state: KeyState, now: float, *, usable: bool) -> KeyStatus:
    cooling = state.cooling if state.until > now or state.refusals else None
    return KeyStatus(
        provider=provider,
        fingerprint=state.fingerprint,
        hint=state.hint,
        usable=usable,
        in_flight=state.in_flight,
        unused_for=int(now - state.last_used) if state.last_used > -math.inf else None,
        cooling=cooling.value if cooling is not None else "",
        cooling_for=math.ceil(max(0.0, state.until - now)) if cooling is not None else 0,
    )
