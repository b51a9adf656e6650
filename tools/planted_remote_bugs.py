"""Bugs of the remote side, the store and the control plane, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug, Edit

_OWNER = ("tests/remote/test_owner.py",)
_RPC = ("tests/remote/test_rpc.py", "tests/remote/test_rpc_interleavings.py")
_ENGINES = (
    "tests/gateway/control/database/test_processes.py",
    "tests/gateway/control/database/test_sqlite.py",
)
_FAILOVER = ("tests/gateway/control/database/test_failover.py",)


def bug(name: str, tests: tuple[str, ...], where: str, old: str, new: str) -> Bug:
    """Describe a bug of one edit by the tests that must catch it."""
    return Bug(name, (Edit(where, old, new),), tests)


REMOTE_BUGS = (
    bug(
        "who is revoked is answered what was under way", _OWNER, "remote/_owner_session.py",
        "        self._refuse_if_ended()  # its key may have been revoked meanwhile\n", "",
    ),
    bug(
        "an old answer about a client counts", ("tests/gateway/sources/test_authorization.py",),
        "gateway/sources/_authorization.py",
        " and answer.clients >= self._clients", "",
    ),
    bug(
        "a bad row takes its last good form away", ("tests/remote/test_rows.py",),
        "remote/_rows.py", "if last is not None and last.name not in self.names:",
        "if last is not None and not last.name:",
    ),
    bug(
        "a disabled provider's secrets are sent", ("tests/gateway/test_protocol.py",),
        "gateway/providers/_wire.py", "if not self.enabled:  # frozen", "if not self:  # frozen",
    ),
    bug(
        "an unusable provider is an unknown one", ("tests/gateway/test_protocol.py",),
        "gateway/_protocol.py", "partial(_usable, types=tuple(types)), kept, stand_in)",
        "partial(_usable, types=tuple(types)), kept)",
    ),
    bug(
        "a last good form outlives its disabling", ("tests/gateway/test_protocol.py",),
        "gateway/providers/_wire.py", "return last if last.enabled and row.enabled else None",
        "return last",
    ),
    bug(
        "a wrong key encrypts", ("tests/gateway/control/store/test_encryption.py",),
        "gateway/control/store/_transaction.py",
        "if not self.repairing and not self._keys_fit:", "if False:",
    ),
    bug(
        "an unreadable provider is logged once and for all",
        ("tests/gateway/control/store/test_encryption.py",),
        "gateway/control/store/_reading.py", "if row not in before:", "if not before:",
    ),
    bug(
        "a killed program needs its key for ever",
        ("tests/gateway/control/store/test_encryption.py",),
        "gateway/control/store/_programs.py", '"WHERE last_contact >= ? ORDER BY',
        '"WHERE last_contact <> ? ORDER BY',
    ),
    bug(
        "a session cut at once makes waits short", ("tests/remote",), "remote/_follower.py",
        "status.since - self._began >= limits.steady_after", "status.since - self._began >= 0",
    ),
    bug(
        "a cancelled call is not told", _RPC, "remote/_rpc_peer.py",
        'self._enqueue(codec.encode_notice("cancel", Cancel(call_id)))', "pass",
    ),
    bug(
        "what is made a secret is not checked", ("tests/remote/test_codec.py",),
        "remote/_codec.py", "None if twin is kind else msgspec.msgpack.Decoder(twin),", "None,",
    ),
    bug(
        "no notice follows a reconnect", ("tests/core/test_keep_subscribed.py",),
        "_keep_subscribed.py", "bus.publish()\n                if is_outage", "if is_outage",
    ),
    bug(
        "all empty fragments of a read are taken in one turn", ("tests/transports/test_floods.py",),
        "transports/_server.py", "receive_buffer_size=_READ_BYTES", "receive_buffer_size=None",
    ),
    bug(
        "a cut connection is a clean end", ("tests/transports",),
        "transports/_channel.py:WebSocketChannel._end_error", "self._cut_error()",
        "trio.EndOfChannel()",
    ),
    bug(
        "a row that came again is read again", ("tests/remote/test_rows.py",),
        "remote/_rows.py", "(known.body is body or known.body == body)", "known.body is None",
    ),
    bug(
        "a revision comes before the clients that it has",
        ("tests/gateway/control/test_gateway_service.py",), "gateway/control/_gateway_service.py",
        "            if sent != latest:", "            if sent is None:",
    ),
    bug(
        "a notice of an earlier set replaces none", ("tests/remote/test_services.py",),
        "remote/_rpc_peer.py",
        "self._latest[method] = make", "self._latest[method + repr(make)] = make",
    ),
    bug(
        "a connection that was refused is used again", _FAILOVER,
        "gateway/control/database/_postgres.py",
        "self._reusable = False  # it may be the wrong", "pass  # it may be the wrong",
    ),
    bug(
        "a new connection leads to a standby", _FAILOVER,
        "gateway/control/database/_postgres_server.py",
        'self._connect("read-write"), True', 'self._connect("any"), True',
    ),
    bug(
        "a connection of any age is used", _FAILOVER, "gateway/control/database/_pool.py",
        "shorten(self._max_age, by=0.2)", "math.inf",
    ),
    bug(
        "whether the store can be written is not tried",
        ("tests/gateway/control/api/test_readiness.py",),
        "gateway/control/_hub.py", ", writing=hub._writing", "",
    ),
    bug(
        "a writer takes its lock late", _ENGINES, "gateway/control/database/_sqlite.py",
        'self._sqlite.execute("BEGIN IMMEDIATE")', 'self._sqlite.execute("BEGIN")',
    ),
    bug(
        "a reader does not wait for the seed", _ENGINES,
        "gateway/control/database/_sqlite.py",
        "self._take_gate(fcntl.LOCK_SH, _SEED_POLL)", "pass",
    ),
    bug(
        "a seed overwrites what people changed", ("tests/gateway/control/store/test_seed.py",),
        "gateway/control/store/_seeding.py",
        "    if now != record.said:", "    if now is record.said:",
    ),
    bug(
        "a key's id is enough", ("tests/gateway/control/store/test_keys.py",),
        "gateway/control/store/_key_rows.py",
        "return row.view() if parse_hash(row.hash).matches(text) else None", "return row.view()",
    ),
    bug(
        "an admin who may read may write", ("tests/gateway/control/api/test_roles.py",),
        "gateway/control/api/_guard.py",
        'if admin.role != "write" and request', 'if not admin.role and request',
    ),
    bug(
        "the API's access log shows names", ("tests/gateway/control/api/test_access_log.py",),
        "gateway/control/api/_access_log.py",
        "word if word in _WORDS else HIDDEN for word", "word for word",
    ),
    bug(
        "refused keys are answered at once", ("tests/gateway/serving/test_refused_keys.py",),
        "gateway/serving/_refused_keys.py:RefusedKeys.refuse",
        "return max(owed - self.burst * _INTERVAL, 0.0)", "return 0.0",
    ),
    bug(
        "each refused key is logged", ("tests/gateway/serving/test_refused_keys.py",),
        "_refusal_log.py", "if now >= self._next_line:", "if now >= 0:",
    ),
    bug(
        "the hub goes back in the same epoch", ("tests/gateway/control/test_hub_epochs.py",),
        "gateway/control/_hub.py",
        "if present.lost_by(served.revisions, served.epochs):",
        "if present.lost_by(present, served.epochs):",
    ),
    bug(
        "what a gateway saw in a lost epoch is not noticed",
        ("tests/gateway/control/test_hub_epochs.py",), "gateway/control/_revisions.py",
        "return bool(self.epoch) and self.epoch not in epochs", "return False",
    ),
    bug(
        "clients are remembered over an epoch", ("tests/gateway/sources",),
        "gateway/sources/_authorization.py", "            self._known.clear()\n", "",
    ),
    bug(
        "a revoked gateway's key lives on", ("tests/gateway/control/test_hub.py",),
        "gateway/control/_hub.py",
        "return key_id in self._served.gateway_keys", "return True",
    ),
    bug(
        "a key in a path is shown", ("tests/gateway/proxy/test_redaction.py",),
        "gateway/proxy/_redaction.py",
        "self._shown.get(segment, HIDDEN)",
        'self._shown.get(segment, segment.decode("latin-1"))',
    ),
    bug(
        "a snapshot that others may read is used", ("tests/gateway/sources/test_snapshot_file.py",),
        "gateway/sources/_snapshot_file.py",
        "if stat.S_IMODE(found.st_mode) & 0o077:", "if not found.st_mode:",
    ),
)  # fmt: skip
