"""`bridgepool usage` on a local store."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control.store import open_store
from bridgepool.gateway.usage._records import UsageRecord
from tests.gateway.commands.commands import Shell

_MODEL = "=cmd|'/c calc'!A1"


async def _add(path: str) -> None:
    keys = find_encryption_keys(path, key_file=None)
    async with open_store(path, keys) as store:
        first = UsageRecord(
            id="1",
            time="2026-01-01T10:00:00.000Z",
            client="web",
            provider="ai",
            answered_model="m1",
            input_tokens=10,
            output_tokens=3,
            complete=True,
            tools=("shell", "edit"),
            fallback_from="main",
            cost=0.25,
            currency="USD",
            priced_as_unknown=True,
        )
        odd = attrs.evolve(
            first,
            id="2",
            time="2026-01-02T10:00:00.000Z",
            answered_model=_MODEL,
            cost=None,
            currency="",
            priced_as_unknown=False,
        )
        await store.usage.add("front-1", [first, odd])


async def _add_refused(path: str) -> None:
    async with open_store(path, find_encryption_keys(path, key_file=None)) as store:
        time = "2026-01-03T10:00:00.000Z"
        record = UsageRecord(id="3", time=time, client="late", provider="ai", model="m0")
        await store.usage.add("front-1", [attrs.evolve(record, outcome="refused", status=503)])


def test_usage_is_shown_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BRIDGEPOOL_URL", "BRIDGEPOOL_STORE", "BRIDGEPOOL_ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)
    path = str(tmp_path / "store.db")
    shell = Shell(capsys, monkeypatch, ("--store", path))
    shell.good("providers", "list", "--create")
    trio.run(_add, path)

    table = shell.good("usage").out.splitlines()
    assert " ".join(table[0].split()) == (
        "CLIENT MODEL REQUESTS REFUSED COMPLETE INPUT OUTPUT CACHED READ CACHED WRITE REASONING "
        "COST USD UNPRICED PRICED AS UNKNOWN"
    )
    assert " ".join(table[1].split()).endswith(" 1 0 1 10 3 0 0 0 - 1 0")  # not 0: it is unknown
    assert " ".join(table[-1].split()) == "web m1 1 0 1 10 3 0 0 0 0.250000 0 1"
    [whole] = shell.good("usage", "--by", "", "--json").json()
    assert (whole["requests"], whole["input_tokens"], whole["client"]) == (2, 20, None)
    days = list(csv.reader(io.StringIO(shell.good("usage", "--by", "day", "--csv").out)))
    assert days[0][:2] == ["day", "requests"]
    assert [row[:2] for row in days[1:]] == [["2026-01-01", "1"], ["2026-01-02", "1"]]
    assert days[0][-3:] == ["cost_USD", "unpriced", "priced_as_unknown"]
    assert [row[-3:] for row in days[1:]] == [["0.25", "0", "1"], ["", "1", "0"]]
    [since] = shell.good("usage", "--by", "day", "--since", "2026-01-02", "--json").json()
    assert since["day"] == "2026-01-02"

    [_, one] = shell.good("usage", "--each", "--limit", "1", "--before", "2").out.splitlines()
    assert " ".join(one.split()) == (
        "2026-01-01T10:00:00.000Z web ai main m1 - - 0 10 3 yes 0.250000 USD 1"
    )
    for text in ("yesterday", "", "é", "2026-01-01"):
        done = shell.run("usage", "--each", "--before", text)
        assert (done.status, done.out) == (2, "")
        assert "before_id: is not the id of a usage record" in done.err
    removed = "f" * 32
    assert "no usage records match" not in shell.good("usage", "--each", "--before", removed).err
    rows = list(csv.DictReader(io.StringIO(shell.good("usage", "--each", "--csv").out)))
    assert list(rows[0]) == [field.name for field in attrs.fields(UsageRecord)]
    assert [(row["id"], row["tools"]) for row in rows] == [("2", "shell edit"), ("1", "shell edit")]
    assert rows[0]["answered_model"] == f"'{_MODEL}"  # no spreadsheet runs it
    assert [one["id"] for one in shell.good("usage", "--each", "--json").json()] == ["2", "1"]

    trio.run(_add_refused, path)
    [heads, one] = shell.good("usage", "--each", "--client", "late").out.splitlines()
    assert "FALLBACK FROM  MODEL  SESSION" in heads
    assert " ".join(one.split()) == "2026-01-03T10:00:00.000Z late ai - m0 - refused 503 - - no - 3"

    [heads, *_] = shell.good("usage", "--by", "session,key,client").out.splitlines()
    assert heads.split()[:4] == ["SESSION", "KEY", "CLIENT", "REQUESTS"]
    spaced = shell.good("usage", "--by", "model, client,client", "--csv").out
    assert spaced.startswith("model,client,requests,")
    nothing = shell.good("usage", "--client", "nobody")
    assert "no usage records match" in nothing.err
    assert "--store-usage" in nothing.err
    for arguments, reason in (
        (("--since", "2026-01-10", "--until", "2026-01-10"), "until: is not after since"),
        (("--csv", "--json"), "one of --csv and --json"),
        (("--each", "--by", "day"), "--by sums, and --each lists"),
        (("--limit", "2"), "--limit and --before require --each"),
        (("--before", "2"), "--limit and --before require --each"),
    ):
        refused = shell.run("usage", *arguments)
        assert (refused.status, refused.out, reason in refused.err) == (2, "", True), arguments
    wrong = shell.run("usage", "--by", "secret")
    assert (wrong.status, "by: is not made of" in wrong.err) == (2, True)
    assert shell.run("usage", "--since", "yesterday").status == 2
