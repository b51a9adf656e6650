from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from bridgepool.gateway.serving._collector import exempt_startup_objects
from tests.gateway.commands.commands import run_program


@pytest.fixture
def nothing_exempt() -> Iterator[None]:
    exempt = gc.get_freeze_count()
    gc.unfreeze()
    yield
    gc.enable()
    if exempt:
        gc.freeze()


@pytest.mark.usefixtures("nothing_exempt")
def test_what_a_program_has_made_at_its_start_is_exempt_while_it_serves() -> None:
    made_before = [object() for _ in range(3)]
    with exempt_startup_objects():
        assert gc.get_freeze_count() > 1000
        assert not any(one is made_before for one in gc.get_objects())
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("nothing_exempt")
def test_the_collector_is_off_while_a_program_starts_and_on_while_it_serves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start: list[bool] = []
    monkeypatch.setattr(
        "bridgepool.gateway.commands.app", lambda _: at_start.append(gc.isenabled())
    )
    assert run_program(capsys, monkeypatch).status == 0
    assert at_start == [False]
    assert gc.isenabled()
    gc.disable()
    with exempt_startup_objects():
        assert gc.isenabled()
