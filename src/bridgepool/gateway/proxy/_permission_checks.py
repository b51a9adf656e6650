"""Whether a client may use a provider and a route, and the model that a request names."""

from __future__ import annotations

from bridgepool.gateway.limits._model_reader import AmbiguousBodyError, read_parameter
from bridgepool.gateway.limits._rules import Permissions, rules_of
from bridgepool.gateway.providers import Caller, RouteMatch
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._refusals import Refusal


def judge_socket(
    caller: Caller, match: RouteMatch, target: bytes, record: AccessRecord
) -> Refusal | None:
    """Return why a client may not use a websocket that is open; None if it may.

    Args:
        caller: The client, with the rules in force.
        match: The route.
        target: The target of the handshake.
        record: Has the provider.
    """
    judged = rules_of(caller).permissions
    return None if judged is None else judge_head(judged, match, target, record, is_socket=True)


def judge_head(
    judged: Permissions, match: RouteMatch, target: bytes, record: AccessRecord, *, is_socket: bool
) -> Refusal | None:
    """Judge what is known before the body: the provider, the route, the model in the query."""
    if not judged.allow_provider(record.provider):
        return refusals.provider_not_allowed(record.provider)
    if not judged.allow_route(match.pattern):
        return refusals.route_not_allowed(match.pattern)
    if not judged.restrict_models:
        return None
    messages = match.route.messages if is_socket else None
    required = messages.model_parameter if messages is not None else ""
    try:  # some endpoints prefer the model in the query to that of the body
        model = read_parameter(target.partition(b"?")[2], required or "model")
    except AmbiguousBodyError as error:
        return refusals.model_not_readable(str(error))
    if model is not None:
        return judge_model(judged, model, record)
    return refusals.MODEL_MISSING if required else None


def judge_model(judged: Permissions, name: str, record: AccessRecord) -> Refusal | None:
    """Judge a model that the request names; the record gets the first one."""
    record.model = record.model or name
    return None if judged.allow_model(name) else refusals.model_not_allowed(name)
