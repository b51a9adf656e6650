from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from bridgepool.gateway._process import raise_open_files_limit


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    raise_open_files_limit(10)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
    assert not caplog.records


def test_a_limit_that_is_too_low_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    raise_open_files_limit(10_000)
    assert "too low for --max-connections" in caplog.text
