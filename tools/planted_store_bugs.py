"""Bugs of the store and of what a control plane says about its gateways, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug, Edit
from tools.planted_remote_bugs import bug

_KILLED = ("tests/gateway/control/database/test_killed_writers.py",)
_RESTORES = ("tests/gateway/control/test_restores.py",)
_HUB = ("tests/gateway/control/test_hub_epochs.py",)
_APPLIED = ("tests/gateway/control/test_applied.py",)
_REFUSED = ("tests/gateway/control/test_refusal_audit.py",)
_SQLITE_WRITE = "gateway/control/database/_sqlite.py:SqliteConnection.write"
_POSTGRES = "gateway/control/database/_postgres.py:PostgresConnection"

STORE_BUGS: tuple[Bug, ...] = (
    # Each commits when the next transaction begins.
    Bug(
        "a change in SQLite is acknowledged before it is kept",
        (
            Edit(
                _SQLITE_WRITE,
                "            self._engine.check()\n",
                "            self._engine.check()\n"
                "            if self._sqlite.in_transaction:\n"
                '                self._sqlite.execute("COMMIT")\n',
            ),
            Edit(
                _SQLITE_WRITE,
                'self._sqlite.execute("COMMIT")\n            if notice',
                'transaction.notified or self._sqlite.execute("COMMIT")\n            if notice',
            ),
            Edit(_SQLITE_WRITE, "self._roll_back()", "transaction.notified or self._roll_back()"),
        ),
        _KILLED,
    ),
    Bug(
        "a change in PostgreSQL is acknowledged before it is kept",
        (
            Edit(f"{_POSTGRES}.usable", " and not self._in_transaction", ""),
            Edit(
                f"{_POSTGRES}._begin",
                "*first, last = statements\n",
                "*first, last = statements\n"
                '            if statements[0] == "BEGIN" and self._in_transaction:\n'
                '                self._commit("COMMIT")\n',
            ),
            Edit(f"{_POSTGRES}._run", "if commit:", "if commit and not transaction.notified:"),
            Edit(
                f"{_POSTGRES}._run",
                "self._roll_back()", "transaction.notified or self._roll_back()",
            ),
        ),
        _KILLED,
    ),
    bug(
        "clients' revisions are compared over epochs", _RESTORES,
        "gateway/sources/_authorization.py",
        "        if epoch != self._epoch:", "        if False:",
    ),
    bug(
        "a restored store is served in the same epoch", _RESTORES,
        "gateway/control/_hub.py",
        "if present.lost_by(served.revisions, served.epochs):",
        "if present.lost_by(present, served.epochs):",
    ),
    bug(
        "other changes of the same revision are not noticed", _HUB,
        "gateway/control/_revisions.py:Revisions.lost_by", "len(marks) > 1", "not marks",
    ),
    bug(
        "a rotation does not show in a backup", _HUB,
        "gateway/control/store/_rotation.py", "            tx.move_revision()", "            pass",
    ),
    bug(
        "an epoch needs the right encryption key", _HUB,
        "gateway/control/store/_epochs.py", "tx.repairing = True", "pass",
    ),
    bug(
        "an embedded gateway goes back in the same epoch",
        ("tests/gateway/control/test_embedded.py",),
        "gateway/control/_embedded.py", "if last is not None and", "if False and",
    ),
    bug(
        "a late answer of a lost epoch counts",
        ("tests/gateway/sources/test_authorization_epochs.py",),
        "gateway/sources/_authorization.py", "answer.epoch != self._epoch or ", "",
    ),
    bug(
        "a receipt of a lost epoch counts", _APPLIED,
        "gateway/control/_applied.py:has_told", " or session.epoch != latest.epoch", "",
    ),
    bug(
        "gateways of a killed control plane are connected",
        ("tests/gateway/control/operations/test_admins.py",),
        "gateway/control/operations/_store_admin.py", "as_of(session, now) for", "session for",
    ),
    bug(
        "a new epoch leaves no trace", _HUB,
        "gateway/control/store/_epochs.py", "audit_rows.record(", "print(",
    ),
    bug(
        "nobody has applied a change, and it is applied", _APPLIED,
        "gateway/control/_applied.py:applied_report",
        "complete and bool(serving) and", "complete and",
    ),
    bug(
        "a gateway that will be back is not waited for", _APPLIED,
        "gateway/control/_applied.py:applied_report",
        '("pending", "reconnecting")', '("pending",)',
    ),
    bug(
        "a gateway whose connection somebody closed has left", ("tests/remote/test_owner.py",),
        "remote/_owner_session.py:OwnerSession._end",
        "loss.by_peer and loss.code == FOLLOWER_ENDED", "not loss.by_peer",
    ),
    bug(
        "a gateway that ends says nothing", ("tests/system/test_gateway_away.py",),
        "remote/_follower_session.py:open_follower_session",
        "if deadline is not None:", "if deadline is None:",
    ),
    bug(
        "a gateway says nothing at its end when a service of it raises",
        ("tests/remote/test_leaving.py",),
        "remote/_follower_session.py:open_follower_session",
        "        finally:\n", "        except BaseException:\n            raise\n        else:\n",
    ),
    bug(
        "an expected gateway is not waited for", _APPLIED,
        "gateway/control/_applied.py:applied_report", "and not missing and", "and",
    ),
    bug(
        "a seed makes clients without a trace", ("tests/gateway/control/store/test_seed.py",),
        "gateway/control/store/_seeding.py:_Seeding.client",
        "audit_rows.record(\n                    self.tx,", "print(\n                    ",
    ),
    bug(
        "a rotation leaves no trace", ("tests/gateway/control/store/test_encryption.py",),
        "gateway/control/store/_rotation.py", "if readable and not self._is_audited:", "if False:",
    ),
    bug(
        "a refused key of an admin leaves no trace", _REFUSED,
        "gateway/control/api/_guard.py:Guard._admit",
        "self._refusals.note,", "lambda _: trio.sleep(0),",
    ),
    bug(
        "a refused key of a gateway leaves no trace", _REFUSED,
        "gateway/control/_gateway_service.py:_Clients.admit",
        "self.backend.note_refused,", "lambda _: trio.sleep(0),",
    ),
    bug(
        "who tries many keys fills the audit", _REFUSED,
        "gateway/control/_refusal_audit.py", "len(self._recent) >= _MAX_ENTRIES", "False",
    ),
)  # fmt: skip
