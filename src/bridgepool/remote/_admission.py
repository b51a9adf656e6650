"""Whether a gateway is let in: its protocol version, then its key."""

import logging
from typing import Final

import attrs

from bridgepool.remote._backend import GatewayIdentity, ProviderBackend
from bridgepool.remote._versions import PROTOCOL, ProtocolVersion, parse_version
from bridgepool.transports._handshake import Handshake, Refused

_log = logging.getLogger("bridgepool.remote")

NO_KEY: Final = Refused(
    401, "no_key", "send the gateway's key as `Authorization: Bearer bpg_…`, once"
)
UNKNOWN_KEY: Final = Refused(
    401,
    "unknown_key",
    "this gateway key is not known, or was revoked; have a new one made for this gateway",
)
UNAVAILABLE: Final = Refused(
    503, "unavailable", "the control plane cannot look keys up at the moment; try again later"
)


@attrs.frozen
class Admitted:
    """A gateway that may begin a session."""

    identity: GatewayIdentity
    protocol: ProtocolVersion = PROTOCOL
    """What it speaks."""
    peer: str = ""
    """Its address, for logs."""


async def admit(handshake: Handshake, backend: ProviderBackend) -> Admitted | Refused:
    """Decide on a handshake; every refusal is logged, with its reason."""
    outcome = await _decide(handshake, backend)
    if isinstance(outcome, Refused):
        facts = {"peer": handshake.peer, "code": outcome.code, "reason": outcome.reason}
        _log.warning("gateway refused", extra=facts)
    return outcome


async def _decide(handshake: Handshake, backend: ProviderBackend) -> Admitted | Refused:
    version = check_version(handshake.query.get("version"))
    if isinstance(version, Refused):
        return version
    if handshake.bearer is None:
        return NO_KEY
    try:
        identity = await backend.admit(handshake.bearer)
    except Exception:  # the backend's: this handshake is answered, and the server goes on
        _log.exception("a gateway's key could not be looked up")
        return UNAVAILABLE
    if identity is None:
        return UNKNOWN_KEY
    return Admitted(identity, version, handshake.peer)


def check_version(text: str | None, own: ProtocolVersion = PROTOCOL) -> ProtocolVersion | Refused:
    """Return the version that a gateway asks for, or why it is refused.

    Args:
        text: The value of ``version`` in the query; None when there is none.
        own: The version of this server.
    """
    try:
        asked = parse_version(text or "")
    except ValueError:
        return Refused(
            400, "version_malformed", f"say the protocol version in the query: ?version={own}"
        )
    if own.serves(asked):
        return asked
    newer = "gateway" if asked > own else "control plane"
    older = "control plane" if newer == "gateway" else "gateway"
    return Refused(
        426,
        "version_refused",
        f"the gateway speaks protocol {asked}, the control plane {own}; upgrade the {older}",
    )
