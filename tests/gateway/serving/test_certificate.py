"""When the certificate of the listeners begins and ends, in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from bridgepool.gateway.serving._certificate import load_certificate, watch_certificate

ENDED = "certificate has ended; clients refuse it"


def issue(folder: Path, begin: datetime, end: datetime) -> Path:
    made = trustme.CA().issue_cert("localhost", not_before=begin, not_after=end)
    path = folder / "all.pem"
    made.private_key_and_cert_chain_pem.write_to_path(path)
    return path


async def test_a_certificate_that_has_ended_or_soon_will_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A program with one that had ended was ready, and each client refused to connect."""
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    path = issue(tmp_path, begin, end)
    certificate = load_certificate(path, path)
    assert certificate is not None
    assert certificate.end == end.timestamp()
    day = 86400.0
    for now, expected in (
        (begin.timestamp() - 1, "certificate is not valid yet; clients refuse it"),
        (begin.timestamp(), ""),
        (end.timestamp() - 7.1 * day, ""),
        (end.timestamp() - 6.9 * day, "certificate ends soon"),
        (end.timestamp(), ENDED),
    ):
        caplog.clear()
        for _ in range(2):
            certificate.check_period(now)
        assert caplog.messages == [expected] * bool(expected)
    [record] = caplog.records
    assert (record.levelname, vars(record)["end"]) == ("ERROR", "2026-04-01T00:00:00Z")

    issue(tmp_path, begin, datetime(2026, 1, 4, tzinfo=UTC))
    with caplog.at_level(logging.INFO, "bridgepool"):
        caplog.clear()
        await certificate.file.read_again()
        assert caplog.messages == [ENDED, "file read again"]  # another one that has ended
        issue(tmp_path, begin, datetime(2126, 1, 4, tzinfo=UTC))
        caplog.clear()
        await certificate.file.read_again()
        assert caplog.messages == ["file read again"]


@pytest.mark.parametrize("count", [0, 1])
async def test_a_certificate_that_has_ended_is_logged_at_the_start(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    count: int,
) -> None:
    path = issue(tmp_path, datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    certificate = load_certificate(path, path) if count else None
    async with watch_certificate(certificate):
        await trio.sleep(10_000)
    assert caplog.messages == [ENDED] * count
