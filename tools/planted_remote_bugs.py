"""Bugs of the remote side, the store and the control plane, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug, Edit

_SERVICE = ("tests/remote/test_service.py",)
_RPC = ("tests/remote/test_rpc.py", "tests/remote/test_rpc_interleavings.py")
_ENGINES = (
    "tests/gateway/control/database/test_processes.py",
    "tests/gateway/control/database/test_sqlite.py",
)


def bug(name: str, tests: tuple[str, ...], where: str, old: str, new: str) -> Bug:
    """Describe a bug of one edit by the tests that must catch it."""
    return Bug(name, (Edit(where, old, new),), tests)


REMOTE_BUGS = (
    bug(
        "who is revoked is answered what was under way", _SERVICE, "remote/_service.py",
        "        self._refuse_if_ended()  # its key may have been revoked meanwhile\n", "",
    ),
    bug(
        "an old answer about a client counts", ("tests/remote/test_authorization.py",),
        "remote/_authorization.py", "return answer.clients >= self._clients and ", "return ",
    ),
    bug(
        "a bad row takes its last good form away", ("tests/remote/test_rows.py",),
        "remote/_rows.py", "if kept is not None and kept[1].name not in self._names:",
        "if kept is not None and not kept[1].name:",
    ),
    bug(
        "a session cut at once makes waits short", ("tests/remote",), "remote/_client.py",
        "status.since - self._began >= limits.steady_after", "status.since - self._began >= 0",
    ),
    bug(
        "a cancelled call is not told", _RPC, "remote/_rpc_peer.py",
        'self._post(codec.encode_notice("cancel", Cancel(call_id)))', "pass",
    ),
    bug(
        "what is made a secret is not checked", ("tests/remote/test_codec.py",),
        "remote/_codec.py", "None if twin is kind else msgspec.msgpack.Decoder(twin),", "None,",
    ),
    bug(
        "a cut connection is a clean end", ("tests/transports",), "transports/_channel.py",
        "if code in _CLEAN_CODES:", "if code in (*_CLEAN_CODES, 1006):",
    ),
    bug(
        "a row is forgotten that came again", ("tests/remote/test_row_reader.py",),
        "remote/_row_reader.py", "            now[data] = row\n", "            now[b''] = row\n",
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
        'if admin.role != "write" and scope', 'if not admin.role and scope',
    ),
    bug(
        "the hub goes back", ("tests/gateway/control/test_hub.py",), "gateway/control/_hub.py",
        "if fresh.revision > present.revision:", "if fresh.revision != present.revision:",
    ),
    bug(
        "a revoked gateway's key lives on", ("tests/gateway/control/test_hub.py",),
        "gateway/control/_hub.py",
        "return key_id in self._reading.keys", "return True",
    ),
    bug(
        "a key in a path is shown", ("tests/gateway/proxy/test_redaction.py",),
        "gateway/proxy/_redaction.py",
        "self._shown.get(segment, HIDDEN)",
        'self._shown.get(segment, segment.decode("latin-1"))',
    ),
    bug(
        "a snapshot that others may read is used", ("tests/gateway",),
        "gateway/sources/_snapshot_file.py",
        "if stat.S_IMODE(found.st_mode) & 0o077:", "if not found.st_mode:",
    ),
)  # fmt: skip
