"""Bugs of websockets, and of what browsers are told, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_RELAY_TESTS = ("tests/gateway/proxy/websockets/test_websockets.py",)
_LIMIT_TESTS = ("tests/gateway/proxy/websockets/test_limits.py",)
_FLOOD_TESTS = ("tests/gateway/proxy/websockets/test_floods.py",)
_GUARD_TESTS = ("tests/gateway/proxy/websockets/test_guard.py",)
_RECOVERY_TESTS = ("tests/gateway/proxy/websockets/test_recovery.py",)
_RECORD_TESTS = ("tests/gateway/proxy/websockets/test_record.py",)
_HANDSHAKE_TESTS = ("tests/gateway/proxy/websockets/test_handshake.py",)
_ENDING_TESTS = ("tests/gateway/proxy/websockets/test_endings.py",)
_LIFETIME_TESTS = ("tests/gateway/proxy/websockets/test_lifetime.py",)
_CORS_TESTS = ("tests/gateway/proxy/test_cors.py",)
_RELAY = "gateway/proxy/websockets/_relay.py"
_PEER = "gateway/proxy/websockets/_peer.py"
_CLOSING = "gateway/proxy/websockets/_closing.py:SocketClosing"
_GUARD = "gateway/proxy/websockets/_guard.py:SocketGuard"
_HANDSHAKE = "gateway/proxy/websockets/_handshake.py"
_USE = "gateway/proxy/websockets/_use.py:SocketUse"
_CORS = "gateway/proxy/_cors.py"

WEBSOCKET_BUGS: tuple[Bug, ...] = (
    bug(
        "frames of a message that is held count by their content alone", _LIMIT_TESTS,
        "gateway/proxy/websockets/_use.py:SocketUse._keep",
        "size = len(payload) + _PIECE_BYTES", "size = len(payload)",
    ),
    bug(
        "a response beyond a limit is begun on a websocket", _LIMIT_TESTS, f"{_USE}._ask",
        "if self._is_limited():", "if False:",
    ),
    bug(
        "a response on a websocket is not charged", _LIMIT_TESTS, f"{_USE}._end",
        "self._costs(response, usage, sent / EVENT_BYTES_PER_TOKEN)", "None",
    ),
    bug(
        "a response that fails on a websocket keeps its place", _LIMIT_TESTS, f"{_USE}.note",
        "response.grant.end(costs_of())", "pass",
    ),
    bug(
        "a response that nobody asked for is free", _LIMIT_TESTS, f"{_USE}._begin",
        "return found", "return None",
    ),
    bug(
        "the messages of a websocket may name any model", _LIMIT_TESTS, f"{_USE}._judge",
        "not judged.allow_model(name)", "False",
    ),
    bug(
        "the query of a request may name any model", ("tests/gateway/proxy/test_client_use.py",),
        "gateway/proxy/_permission_checks.py:judge_head", 'required or "model"', 'required or "-"',
    ),
    bug(
        "the query of a websocket may name two models", _LIMIT_TESTS,
        "gateway/limits/_model_reader.py:read_parameter", "len(found) > 1", "False",
    ),
    bug(
        "a message that was held stays in memory", _LIMIT_TESTS, f"{_USE}._release",
        "self._uses.bodies.release_for(self.caller.client_id, held.reserved)", "pass",
    ),
    bug(
        "a message that is refused holds memory until its end", _FLOOD_TESTS, f"{_USE}._keep",
        "self._release()", "pass",
    ),
    bug(
        "any number of responses is asked for and waited for", _FLOOD_TESTS, f"{_USE}._ask",
        "len(self._asked) >= _MAX_ASKED", "False",
    ),
    bug(
        "any number of responses is waited for in the log of a websocket", _FLOOD_TESTS,
        "gateway/proxy/websockets/_log.py:SocketLog.note_client",
        " and len(self._asked) < _MAX_WAITING", "",
    ),
    bug(
        "a cut response is charged all that its websocket sent", _LIMIT_TESTS, f"{_USE}._begin",
        "response.begun_at = self._record.bytes_sent", "pass",
    ),
    bug(
        "a response whose beginning is not told keeps its place", _LIMIT_TESTS, f"{_USE}.note",
        "self._running or self._asked", "self._running",
    ),
    bug(
        "an error is lost while a message is under way", _LIMIT_TESTS, f"{_PEER}:Peer._take_own",
        "own, self._later = own + self._later, []", "self._later = []",
    ),
    bug(
        "a pong that comes while a frame is written waits for the next message",
        ("tests/gateway/proxy/websockets/test_peer.py",), f"{_PEER}:Peer._send_all",
        "data = self._take_own()", 'data = b""',
    ),
    bug(
        "a message begins while a frame of the gateway's is being sent",
        ("tests/gateway/proxy/websockets/test_peer.py",), f"{_PEER}:Peer.send",
        "while self._sending:", "while False:",
    ),
    bug(
        "a message that came as the gateway ended is lost",
        ("tests/gateway/proxy/websockets/test_closing.py",), f"{_PEER}:Peer.send",
        "await trio.lowlevel.checkpoint_if_cancelled()", "pass",
    ),
    bug(
        "a message that came with a ping as the gateway ended is lost",
        ("tests/gateway/proxy/websockets/test_closing.py",), f"{_RELAY}:_Relay._take",
        "self._taken, target.unsent = pieces, True", "self._taken = pieces",
    ),
    bug(
        "a frame of ours is sent within another",
        ("tests/gateway/proxy/websockets/test_peer.py",), f"{_PEER}:Peer._take_own",
        " and not self._in_frame", "",
    ),
    bug(
        "any number of errors waits for the end of a message",
        ("tests/gateway/proxy/websockets/test_peer.py",), f"{_PEER}:Peer.send_own",
        "if len(self._later) < _MAX_LATER", "if True",
    ),
    bug(
        "any number of pongs waits for the end of a frame",
        ("tests/gateway/proxy/websockets/test_peer.py",), f"{_PEER}:Peer.send_own",
        "if len(self._waiting) < 4", "if True",
    ),
    bug(
        "all frames that come at once are passed on in one turn",
        ("tests/gateway/proxy/websockets/test_peer.py",), f"{_PEER}:Peer.receive",
        "_MAX_FRAMES if self.masks else _MAX_CLIENT_FRAMES", "1 << 20",
    ),
    bug(
        "a close waits for the upstream to take its own",
        ("tests/gateway/proxy/websockets/test_closing.py",), f"{_RELAY}:_Relay.close",
        "nursery.start_soon(self._upstream.close, end.to_upstream)",
        "await self._upstream.close(end.to_upstream)",
    ),
    bug(
        "a websocket outlives its key", _GUARD_TESTS,
        "gateway/proxy/websockets/_guard.py:SocketGuard.check",
        "None if found.code == AUTHORIZATION_UNAVAILABLE.code else found", "None",
    ),
    bug(
        "a websocket keeps the rules that it began with", _GUARD_TESTS,
        "gateway/proxy/websockets/_guard.py:SocketGuard.check", "self.judge(found.ruled)", "None",
    ),
    bug(
        "a response that runs as the rules go keeps its place", _GUARD_TESTS,
        "gateway/proxy/websockets/_guard.py:SocketGuard.judge", "self.use.end()", "pass",
    ),
    bug(
        "rules that come while a websocket is open give a response for nothing", _GUARD_TESTS,
        "gateway/proxy/websockets/_guard.py:SocketGuard.judge", "is_first=opened", "is_first=True",
    ),
    bug(
        "a disabled provider begins responses on a websocket", _RELAY_TESTS,
        "gateway/proxy/websockets/_guard.py:SocketGuard.passes", "self.call.refuse_now()", "None",
    ),
    bug(
        "a websocket is closed within a message", _RELAY_TESTS, f"{_RELAY}:relay_websocket",
        "await relay.end_message()", "pass",
    ),
    bug(
        "a websocket is closed within a response although there was time",
        ("tests/gateway/proxy/websockets/test_lifetime.py",),
        "gateway/proxy/websockets/_lifetime.py:Lifetime.why_close", "return reason", 'return ""',
    ),
    bug(
        "messages after the end of a response are lost when its websocket is closed",
        ("tests/gateway/proxy/websockets/test_lifetime.py",),
        "gateway/proxy/websockets/_closing.py:SocketClosing.note_provider",
        "ended and not self._trails", "ended",
    ),
    bug(
        "a response is begun on a websocket that is to be closed, and cut",
        ("tests/gateway/proxy/websockets/test_lifetime.py",),
        "gateway/proxy/websockets/_closing.py:SocketClosing.note_client",
        "and self._ended < inf", "and False",
    ),
    bug(
        "a shutdown closes all idle websockets in the same moment",
        ("tests/gateway/proxy/websockets/test_lifetime.py",),
        "gateway/proxy/websockets/_lifetime.py:Shutdown.turn",
        "self._since + place * self._spread", "self._since",
    ),
    bug(
        "a shutdown closes a websocket within a response",
        ("tests/gateway/proxy/websockets/test_responses.py",),
        "gateway/proxy/websockets/_responses.py:SocketResponses.none_running",
        "self.under_way", "self._asked",
    ),
    bug(
        "a browser's key goes on to the provider", _RELAY_TESTS, f"{_HANDSHAKE}:read_handshake",
        "if not each.startswith(CREDENTIAL_PROTOCOLS)", "if each",
    ),
    bug(
        "a client opens any number of websockets", _RELAY_TESTS,
        f"{_HANDSHAKE}:WebSockets._refuse_full", "self._of_client[client] < limits.max_per_client",
        "True",
    ),
    bug(
        "a websocket is no running request of the gateway", _RECOVERY_TESTS,
        "gateway/proxy/_app.py:Gateway._serve", "is_limited = ",
        "is_limited = not is_websocket_handshake(exchange.request) and ",
    ),
    bug(
        "a websocket that is cut looks like one that was closed", _RECORD_TESTS,
        f"{_RELAY}:_End.close_code", "_NO_CODE if self.outcome is Outcome.COMPLETE else _NO_CLOSE",
        "_NO_CODE",
    ),
    bug(
        "a websocket that a shutdown closes looks like one that was cut", _RELAY_TESTS,
        f"{_RELAY}:relay_websocket", "            record.close_code = code\n", "",
    ),
    bug(
        "the usage of a websocket is written twice", _RECORD_TESTS,
        "gateway/proxy/_usage.py:UsageReporter.observe",
        'record.provider != "-" and not record.has_responses', 'record.provider != "-"',
    ),
    bug(
        "a response on a websocket has no model, and so no price", _RECORD_TESTS,
        "gateway/proxy/websockets/_log.py:SocketLog._make", "model=response.model,",
        'model="",',
    ),
    bug(
        "a response on a websocket that is answered with an error has no record", _RECORD_TESTS,
        "gateway/proxy/websockets/_log.py:SocketLog.note_provider", "self._report(made)", "pass",
    ),
    bug(
        "the end of a response that nobody asked for has a record", _RECORD_TESTS,
        "gateway/proxy/websockets/_log.py:SocketLog.note_provider",
        "if messages is None or self._running or self._asked:", "if True:",
    ),
    bug(
        "the prompts of a websocket are not recorded", _RECORD_TESTS,
        "gateway/proxy/websockets/_log.py:SocketLog.note_client", "_keep(recording.request, piece)",
        "pass",
    ),
    bug(
        "a response on a websocket has no span of its own", ("tests/gateway/test_tracing.py",),
        "gateway/_opening.py:open_gateway", "(*response_observers, tracing.observe)",
        "response_observers",
    ),
    bug(
        "an upstream chooses a protocol that no client offered", _HANDSHAKE_TESTS,
        f"{_HANDSHAKE}:WebSocketCall.response_headers", "protocol not in self.protocols", "False",
    ),
    bug(
        "a response that has not begun keeps its place when its websocket ends", _FLOOD_TESTS,
        f"{_USE}.end", "response.grant.end(None)", "pass",
    ),
    bug(
        "messages after the close of a client go on", _ENDING_TESTS, f"{_RELAY}:_Relay._take",
        "                break\n", "                pass\n",
    ),
    bug(
        "a client that reads nothing keeps a websocket that is to end", _ENDING_TESTS,
        f"{_RELAY}:_Relay._keep_time", "elif self._leaving is not None:", "elif False:",
    ),
    bug(
        "the next message begins on a websocket whose time is over", _LIFETIME_TESTS,
        f"{_RELAY}:_Relay._note",
        "if self._leaving is not None and not self._client.in_message:", "if False:",
    ),
    bug(
        "messages after a response keep a websocket without end", _LIFETIME_TESTS,
        f"{_CLOSING}.look", "now - self._ended >= _MAX_TRAIL", "False",
    ),
    bug(
        "a response that is begun unasked is cut by the next message of the client",
        _LIFETIME_TESTS, f"{_CLOSING}.note_provider", "self._ended = inf", "pass",
    ),
    bug(
        "a shutdown that begins again moves the turns of websockets", _LIFETIME_TESTS,
        "gateway/proxy/websockets/_lifetime.py:Shutdown.begin",
        "if not self.begun.is_set():", "if True:",
    ),
    bug(
        "a message after that of a response without room lets it go on", _FLOOD_TESTS,
        f"{_GUARD}.note_provider", "await self.use.note(event) or refusal",
        "await self.use.note(event)",
    ),
    bug(
        "a client is not told that its provider is disabled again", _RELAY_TESTS,
        f"{_GUARD}.passes", "self._told = None", "pass",
    ),
    bug(
        "an error takes the recorded messages of the response that runs", _RECORD_TESTS,
        "gateway/proxy/websockets/_log.py:SocketLog.note_provider", "made._recording = None",
        "pass",
    ),
    bug(
        "a close is sent within a message that an upstream got in part",
        ("tests/http/test_upgrade.py",),
        "http/_upgraded_streams.py:UpgradedUpstreamStream.send_all",
        "connection.write_due < math.inf", "False",
    ),
    bug(
        "pages of any origin may read answers", _CORS_TESTS, f"{_CORS}:Cors.allowed_origin",
        "origin.lower() in self._origins", "True",
    ),
    bug(
        "a preflight is answered by a wildcard", _CORS_TESTS, f"{_CORS}:preflight_headers",
        '(b"access-control-allow-headers", names)', '(b"access-control-allow-headers", b"*")',
    ),
    bug(
        "caches mix the answers for two origins", _CORS_TESTS, f"{_CORS}:_cors_headers",
        '        (b"vary", b"origin"),\n', "",
    ),
)  # fmt: skip
