from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from bridgepool.gateway.serving._collector import exempt_startup_objects


@pytest.fixture
def nothing_exempt() -> Iterator[None]:
    exempt = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if exempt:
        gc.freeze()


@pytest.mark.usefixtures("nothing_exempt")
def test_what_a_program_has_made_at_its_start_is_exempt_while_it_serves() -> None:
    made_before = [object() for _ in range(3)]
    with exempt_startup_objects():
        assert gc.get_freeze_count() > 1000
        assert not any(one is made_before for one in gc.get_objects())
    assert gc.get_freeze_count() == 0
