"""The number of connections that a program accepts."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator

import pytest

from bridgepool.gateway.serving._connections import make_limiter, raise_open_files_limit

LOGGER = logging.getLogger("bridgepool.gateway")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    raise_open_files_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256


def test_the_limit_of_open_files_bounds_the_connections_with_two_for_each(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 connections used up 10,000 files, and no upstream could be reached."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4500, 4500))
    limiter = make_limiter(LOGGER, 10_000, None, ())
    assert (limiter.max_connections, limiter.max_per_peer) == (2000, 500)
    [warning] = caplog.records
    assert "too low for --max-connections" in warning.message


def test_a_limit_of_open_files_below_the_default_number_of_connections_is_no_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start warned where the limit was 20,000 files, also without --max-connections."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20_000, 20_000))
    limiter = make_limiter(LOGGER, None, None, ())
    assert limiter.max_connections == 9750
    [line] = caplog.records
    assert (line.levelname, line.message) == (
        "INFO",
        "open-file limit too low for --max-connections",
    )


def test_a_limit_of_open_files_that_is_high_enough_changes_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20_500, 20_500))
    limiter = make_limiter(LOGGER, 10_000, 3, ())
    assert (limiter.max_connections, limiter.max_per_peer) == (10_000, 3)
    assert not caplog.records


def test_trusted_proxies_and_loopback_have_no_limit_of_their_own() -> None:
    limiter = make_limiter(LOGGER, 100, 1, ("10.0.0.0/8", "192.0.2.1"))
    places = [limiter.enter(host, 0.0) for host in ("10.9.9.9", "192.0.2.1", "127.0.0.1") * 2]
    assert [place.reserved for place in places if place] == [False] * 6
    other = [limiter.enter("192.0.2.2", 0.0) for _ in range(2)]
    assert [place.reserved for place in other if place] == [False, True]
