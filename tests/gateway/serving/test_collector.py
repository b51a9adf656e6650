from __future__ import annotations

import gc

from bridgepool.gateway.serving._collector import exempt_startup_objects


def test_what_a_program_has_made_at_its_start_is_exempt_while_it_serves() -> None:
    made_before = [object() for _ in range(3)]
    assert gc.get_freeze_count() == 0
    with exempt_startup_objects():
        assert gc.get_freeze_count() > 1000
        assert not any(one is made_before for one in gc.get_objects())
    assert gc.get_freeze_count() == 0
