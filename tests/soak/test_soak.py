from __future__ import annotations

import pytest

from tests.soak.load import soak


async def test_no_stream_is_cut_while_providers_change_for_three_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tally = await soak(clients=40, seconds=3, replacements_per_second=20, patch=monkeypatch)
    tally.check()
    assert tally.replacements == 60
    assert tally.streams >= 40
    assert tally.runtimes == 0
    assert (tally.keys_used, tally.keys_left) == (3, 0)


@pytest.mark.soak
async def test_no_stream_is_cut_by_200_clients_and_20_replacements_a_second_for_30_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = await soak(clients=200, seconds=30, replacements_per_second=20, patch=monkeypatch)
    with capsys.disabled():
        print(f"\n{tally}")
    tally.check()
    assert tally.replacements == 600
    assert tally.streams >= 1000
    assert tally.runtimes == 0
    assert (tally.keys_used, tally.keys_left) == (3, 0)
