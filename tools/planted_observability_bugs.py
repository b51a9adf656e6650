"""Bugs of what the programs report of themselves, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_IDS = ("tests/gateway/proxy/test_request_id.py",)
_ADMIN = ("tests/gateway/serving/test_admin.py",)
_PEER = ("tests/gateway/serving/test_peer.py",)
_TRACES = ("tests/gateway/test_tracing.py",)
_METRICS = ("tests/gateway/metrics",)
_REQUEST_ID = "gateway/proxy/_request_id.py"

OBSERVABILITY_BUGS: tuple[Bug, ...] = (
    bug(
        "a key is taken for a request id", _IDS, f"{_REQUEST_ID}:_well_formed",
        "or holds_access_key(value)", "",
    ),
    bug(
        "the first of two request ids is taken", _IDS, f"{_REQUEST_ID}:find_request_id",
        "return new_request_id()", "break",
    ),
    bug(
        "an upstream's request id takes the place of ours", _IDS,
        f"{_REQUEST_ID}:return_request_id",
        "field if field[0] != REQUEST_ID_HEADER else (UPSTREAM_ID_HEADER, field[1])", "field",
    ),
    bug(
        "invalid input has no record", _IDS,
        "gateway/proxy/_recorder.py:Recorder.refuse_invalid", "self.end(record, path)", "pass",
    ),
    bug(
        "an observer that raises fails the request", ("tests/gateway/proxy/test_access_log.py",),
        "gateway/proxy/_recorder.py:Recorder._call", "except Exception:",
        "except ZeroDivisionError:",
    ),
    bug(
        "strangers make up time series of the control plane",
        ("tests/gateway/control/api/test_access_log.py",),
        "gateway/control/api/_access_log.py:ApiRecord.pattern",
        "return HIDDEN", "return self.route",
    ),
    bug(
        "a web page reads the status", _ADMIN, "gateway/serving/_admin.py:AdminPages._admit",
        "if is_local_program(headers):", "if True:",
    ),
    bug(
        "a proxy on this machine opens an anonymous gateway to others",
        ("tests/gateway/proxy/test_auth.py",),
        "gateway/proxy/_auth.py:_refuse_foreign",
        "if comes_from_elsewhere(headers):", "if False:",
    ),
    bug(
        "a gateway of trusted proxies needs no clients", ("tests/gateway/test_options.py",),
        "gateway/_options.py:GatewayOptions.settings", " and not self.trusted_proxy", "",
    ),
    bug(
        "any token opens the admin port", _ADMIN, "gateway/serving/_admin.py:AdminPages._admit",
        'if hmac.compare_digest(given, self._token.value.reveal().encode("ascii")):', "if given:",
    ),
    bug(
        "an admin port that others reach needs no token", _ADMIN,
        "gateway/serving/_admin.py:enter_admin_listeners",
        "if token is None and not address.is_loopback:", "if False:",
    ),
    bug(
        "anybody names the peer", _PEER, "gateway/serving/_peer.py:find_peer_behind",
        "if not is_among(networks, connection):", "if parse_address(connection) is None:",
    ),
    bug(
        "the client names the peer", _PEER, "gateway/serving/_peer.py:find_peer_behind",
        'reversed(hops.decode("latin-1").split(",")[-_MAX_HOPS:])',
        'hops.decode("latin-1").split(",")[-_MAX_HOPS:]',
    ),
    bug(
        "a trace that its client does not sample is exported", _TRACES,
        "gateway/proxy/_tracing.py:begin_trace", "if not int(found[3], 16) & 1:", "if False:",
    ),
    bug(
        "the upstream is told the client's span", _TRACES,
        "gateway/proxy/_tracing.py:RequestTrace.propagate",
        "self._attempts[-1].span_id", "self.parent_id",
    ),
    bug(
        "a collector that hangs holds up the end", _TRACES,
        "gateway/tracing/_otlp.py:_end", "trio.move_on_after(_SHUTDOWN_TIMEOUT)",
        "trio.move_on_after(600)",
    ),
    bug(
        "the buckets of a histogram do not add up", _METRICS,
        "gateway/metrics/_cells.py:Histograms.lines", "count += inside", "count = inside",
    ),
    bug(
        "a scrape holds up every stream", _METRICS,
        "gateway/metrics/_exposition.py:write", "if size > _PIECE:", "if False:",
    ),
    bug(
        "what was counted for old providers is kept for ever", _METRICS,
        "gateway/metrics/_gateway.py:RequestMetrics.forget_providers",
        "if now - seen > _FORGET_AFTER", "if False",
    ),
)  # fmt: skip
"""The bugs to plant."""
