"""Bugs of the gateway's data plane, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_REFUSING = ("tests/gateway/proxy/test_refusing.py",)
_SHARED = ("tests/gateway/proxy/test_shared_connections.py",)
_FIELDS = ("tests/gateway/proxy/test_fields.py",)
_URLS = ("tests/gateway/proxy/test_answer_urls.py",)
_SETS = ("tests/gateway/sources/test_empty_sets.py",)
_HALF_WRITTEN = ("tests/gateway/providers/test_half_written.py",)
_NAMES = ("tests/http_client/test_name_lookups.py",)
_ROUTE = "gateway/proxy/_routing.py:find_route"
_WIRE = "http/_h11_wires.py:H11ClientWire"
_KEY_POOL = ("tests/gateway/upstreams/test_key_pool.py",)
_FAILOVER = ("tests/gateway/proxy/test_key_failover.py",)
_KEY_USAGE = ("tests/gateway/control/test_key_usage.py",)
_KEYS = "gateway/upstreams/_key_pool.py"
_CREDENTIALS = "gateway/providers/_credentials.py"

GATEWAY_BUGS: tuple[Bug, ...] = (
    bug(
        "a disabled provider says so on open routes only", _REFUSING, _ROUTE,
        "return found.refusal",
        "is_open = any(kind.match(request.method, target.path) for kind in redactor._types)\n"
        "        return found.refusal if is_open else refusals.unknown_provider(())",
    ),
    bug(
        "the last key instead of the first", _REFUSING,
        "gateway/upstreams/_key_pool.py:KeyRing.take", "self.keys:", "self.keys[::-1]:",
    ),
    bug(
        "a second 429 makes a cooldown shorter", _KEY_POOL, f"{_KEYS}:KeyUse.rate_limited",
        "max(state.until, now + seconds)", "now + seconds",
    ),
    bug(
        "each of many 401s at once doubles the time", _KEY_POOL, f"{_KEYS}:KeyUse.refused",
        "if state.cooling is Cooling.REFUSED and not self._tries:", "if False:",
    ),
    bug(
        "everybody tries a refused key again", _KEY_POOL, f"{_KEYS}:KeyState.can_be_taken",
        "return now >= self.until and not self.tried", "return now >= self.until",
    ),
    bug(
        "a request that ends without an answer tries a key for ever", _KEY_POOL,
        f"{_KEYS}:KeyUse.end", "if self._tries:", "if False:",
    ),
    bug(
        "an old answer ends a cooldown", _KEY_POOL, f"{_KEYS}:KeyUse.accepted",
        "if self._tries:", "if True:",
    ),
    bug(
        "a key that was taken out is forgotten at once", _KEY_POOL,
        f"{_KEYS}:KeyPool._forget_oldest", "retired[:-MAX_RETIRED]", "retired",
    ),
    bug(
        "one request that is too large cools all keys down", _FAILOVER,
        "gateway/proxy/_attempts.py:_is_too_large", "is None:\n        return False",
        "is None or True:\n        return False",
    ),
    bug(
        "403 counts as a refused key", _FAILOVER, "gateway/proxy/_attempts.py:Attempts._judge_key",
        "status == 401", "status in (401, 403)",
    ),
    bug(
        "what a body has sent is not sent again", _FAILOVER,
        "gateway/proxy/_replay.py:KeptBody.attempt", "tuple(self._kept or ())", "()",
    ),
    bug(
        "bodies beyond the bound are kept", _FAILOVER,
        "gateway/proxy/_replay.py:KeptBody.receive_some",
        "self._size + len(piece) <= self._limit and self._budget.reserve(len(piece))", "True",
    ),
    bug(
        "a client's own key gives way to the central one",
        ("tests/gateway/providers/test_credentials.py",),
        f"{_CREDENTIALS}:swap_credentials",
        "key is not None and not passes_own_key(provider, own_key)", "key is not None",
    ),
    bug(
        "a key is safe to revoke before the change has come", _KEY_USAGE,
        "gateway/control/_key_usage.py:_has_revision", "report.revision >= revision", "True",
    ),
    bug(
        "a gateway that reports nothing uses nothing", _KEY_USAGE,
        "gateway/control/_key_usage.py:_usage", "unknown.add(row.gateway)", "pass",
    ),
    bug(
        "a body above the limit hides a refusal", _REFUSING,
        "http/_h11_wires.py:H11ServerWire._accept",
        'self._too_large = f"the body is larger than {self._limits.max_body_bytes} bytes"',
        'raise BodyTooLarge("the body is too large")',
    ),
    bug(
        "a body passes on a method that takes none", _SHARED, _ROUTE,
        "and has_body(request.headers):", "and False:",
    ),
    bug(
        "a connection is kept after chunks", ("tests/http/test_wire_reuse.py",),
        f"{_WIRE}.send_head",
        "request.method in _METHODS_WITH_BODY and length is not None",
        "request.method in _METHODS_WITH_BODY",
    ),
    bug(
        "a connection is kept after a malformed head", ("tests/http/test_response_heads.py",),
        f"{_WIRE}._next_head", "self.fault, self._keep_alive = fault, False", "self.fault = fault",
    ),
    bug(
        "an oddity may stand in a field about framing", ("tests/http/test_response_heads.py",),
        "http/_response_heads.py:_rewrite_fields",
        "if any(word in letters for word in _FRAMING_WORDS):", "if False:",
    ),
    bug(
        "a connection is kept after an error to a body", _SHARED, f"{_WIRE}._next_head",
        "head.status < 300 or not self._has_body", "True",
    ),
    bug(
        "a connection is kept after a response that can have no body", _SHARED,
        f"{_WIRE}._next_head", " and self._reader is not read_nothing", "",
    ),
    bug(
        "a connection is kept after an early answer", ("tests/http_client/test_uploads.py",),
        "http/_upstream_call.py:UpstreamCall.__aenter__",
        "connection.not_reusable = True", "pass",
    ),
    bug(
        "a body that breaks like an upstream is taken for an early end",
        ("tests/http_client/test_uploads.py",), "http/_upload.py:Upload.run",
        "await self._connection.abort(error)  # raised by the user's body", "pass",
    ),
    bug(
        "the end of a body begins a wait for a head that has come",
        ("tests/http_client/test_uploads.py",), "http/_upload.py:Upload._send",
        "if not self.answered:", "if connection.read_due == math.inf:",
    ),
    bug(
        "a body is read although its request has ended",
        ("tests/http_client/test_uploads.py",), "http/_upload.py:Upload.wait_stopped",
        "_STOP_TIMEOUT, shield=True", "_STOP_TIMEOUT",
    ),
    bug(
        "a reader that is busy after the head has its response cut",
        ("tests/http_client/test_bad_upstreams.py",),
        "http/_upstream_call.py:UpstreamCall.__aenter__",
        "        connection.read_due = math.inf\n", "",
    ),
    bug(
        "an answer that comes unasked is used", ("tests/corpus/test_answers.py",),
        "http/_upstream_connection.py:UpstreamConnection.is_dead",
        "return self._poll is not None and bool(self._poll(0))", "return False",
    ),
    bug(
        "what TLS holds is not seen", ("tests/http_client/test_tls.py",),
        "http/_upstream_connection.py:_holds_data",
        "return bool(pending or layer.pending())", "return bool(layer.pending())",
    ),
    bug(
        "a key of ours passes in a header", _FIELDS, f"{_CREDENTIALS}:withhold_fields",
        "kept = [field for field in kept if not holds_access_key(field[1])]", "pass",
    ),
    bug(
        "a key of ours passes in a parameter", _FIELDS, f"{_CREDENTIALS}:_passes",
        "return not holds_access_key(parameter)", "return True",
    ),
    bug(
        "trailers pass as they are", _FIELDS,
        "gateway/proxy/_uploaded_body.py:UploadedBody.trailers",
        "return withhold_fields(", "return self._body.trailers or withhold_fields(",
    ),
    bug(
        "an address that leads elsewhere passes", _URLS, "gateway/proxy/_answer_urls.py:_own",
        "if found is not None else None", "if found is not None else value",
    ),
    bug(
        "one connection is accepted in a turn", ("tests/http/test_accepting.py",),
        "_accepting.py", "MAX_ACCEPTED_PER_TURN = 256", "MAX_ACCEPTED_PER_TURN = 1",
    ),
    bug(
        "a full server has no place for health checks", ("tests/http/test_connection_limit.py",),
        "_connection_limiter.py:ConnectionLimiter.enter",
        "if self.reserved < self.reserve and", "if self.reserved > self.reserve and",
    ),
    bug(
        "one address takes the whole reserve", ("tests/http/test_connection_limit.py",),
        "_connection_limiter.py:ConnectionLimiter.enter",
        "self._of_peer[peer, True] < self.reserve_per_peer",
        "self._of_peer[peer, True] < self.reserve",
    ),
    bug(
        "who leaves with the whole response has left early", ("tests/http/test_disconnects.py",),
        "http/_server_connection.py:ServerConnection._send_last",
        "self.stream.response_pending = False", "pass",
    ),
    bug(
        "all connections time out in one turn", ("tests/http/test_connection_limit.py",),
        "http/_server.py", "_MAX_TIMEOUTS_AT_ONCE = 16", "_MAX_TIMEOUTS_AT_ONCE = 10**9",
    ),
    bug(
        "one client waits for all connections", ("tests/http_client/test_connection_slots.py",),
        "http/_connection_slots.py:ConnectionSlots.release", "self._held[tenant] -= 1", "pass",
    ),
    bug(
        "clients that wait do not take turns", ("tests/http_client/test_connection_slots.py",),
        "http/_connection_slots.py:ConnectionSlots._grant_turns",
        "self._queues.move_to_end(tenant)", "pass",
    ),
    bug(
        "a body holds a connection before it flows", ("tests/gateway/proxy/test_fairness.py",),
        "gateway/proxy/_request_body.py:begin_body",
        'elif name == b"expect" and', "elif",
    ),
    bug(
        "an empty set wipes all routing", _SETS,
        "gateway/_opening.py:_PoolAndRuntimes.replace_providers",
        "if not snapshot.providers and", "if False and",
    ),
    bug(
        "providers without keys are ready", _SETS,
        "gateway/proxy/_readiness.py:Readiness._why_nothing_is_served",
        "if enabled and table.unusable() == enabled:", "if False:",
    ),
    bug(
        "the first part of a file is taken", _HALF_WRITTEN,
        "gateway/providers/_file_source.py:ProviderFileSource._may_be_incomplete",
        "or result.lacks_some_of(self.file)", "",
    ),
    bug(
        "a placeholder is a key", ("tests/gateway/providers/test_placeholders.py",),
        "gateway/providers/_placeholders.py:is_placeholder", "is not None", "is None and False",
    ),
    bug(
        "each caller looks the name up", _NAMES, "_tcp.py:TcpConnector._resolve",
        "self._running or self._begin()", "self._begin()",
    ),
    bug(
        "an old address is used for ever", _NAMES, "_tcp.py:TcpConnector._resolve",
        "and trio.current_time() < self._confirmed + _MAX_AGE", "",
    ),
)  # fmt: skip
"""The bugs to plant."""
