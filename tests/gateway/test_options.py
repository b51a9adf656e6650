"""Which options go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.serving._listening import Address, StartError
from bridgepool.gateway.sources._control_source import check_url
from bridgepool.gateway.sources._key_file import KeyFile

FILE = Path("any")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (GatewayOptions(), "none is given"),
        (GatewayOptions(providers=FILE, store="a.db"), "--providers and --store are given"),
        (GatewayOptions(control="ws://h:1"), "--control needs --key-file"),
        (GatewayOptions(providers=FILE, key_file=FILE), "--key-file is of use with --control"),
        (GatewayOptions(store="a.db", snapshot_file=FILE), "--snapshot-file is of use with"),
        (GatewayOptions(providers=FILE, encryption_key_file=FILE), "of use with --store only"),
        (
            GatewayOptions(control="ws://h:1", key_file=FILE, snapshot_key_file=FILE),
            "needs --snapshot-file",
        ),
        (GatewayOptions(providers=FILE, max_connections=0), "--max-connections"),
        (GatewayOptions(providers=FILE, max_stale=0.0), "--max-stale"),
        (GatewayOptions(providers=FILE, max_stale=float("nan")), "--max-stale"),
    ],
)
def test_what_does_not_go_together_is_said(options: GatewayOptions, why: str) -> None:
    with pytest.raises(StartError, match=why):
        options.check()


@pytest.mark.parametrize(
    "options",
    [
        GatewayOptions(providers=FILE),
        GatewayOptions(store="a.db", encryption_key_file=FILE),
        GatewayOptions(
            control="wss://h:1",
            key_file=FILE,
            ca_file=FILE,
            snapshot_file=FILE,
            snapshot_key_file=FILE,
        ),
    ],
)
def test_each_source_goes_with_its_own_options(options: GatewayOptions) -> None:
    options.check()


def test_the_source_is_asked_three_times_before_it_is_too_old() -> None:
    options = GatewayOptions(providers=FILE, max_stale=60.0)
    assert options.settings([Address("127.0.0.1", 0)]).poll_interval == 20.0
    assert options.settings([Address("127.0.0.1", 0)]).allow_anonymous
    assert not options.settings([Address("127.0.0.1", 0), Address("::", 0)]).allow_anonymous


@pytest.mark.parametrize(
    "url",
    ["", "http://h:1", "h:1", "ws://", "ws://h:x", "ws://u:5ecre7@h:1", "wss://h:1/?key=5ecre7"],
)
def test_what_is_no_url_of_a_control_plane_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StartError, match="wss://HOST:PORT") as caught:
        check_url(url)
    assert "5ecre7" not in str(caught.value)


def test_keys_that_cross_a_network_readable_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for quiet in ("wss://h.example:1", "ws://127.0.0.1:1", "ws://[::1]:1", "ws://localhost:1"):
        check_url(quiet)
    assert not caplog.records
    check_url("ws://h.example:1")
    assert "cross the network readable" in caplog.text


def test_a_key_file_holds_one_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    path.write_text("bpg_5ecre7\n")
    path.chmod(0o600)
    assert KeyFile.open(path).read().reveal() == "bpg_5ecre7"
    assert not caplog.records
    path.chmod(0o644)
    KeyFile.open(path)
    assert "can be read by others" in caplog.text
    for bad in ("", "\n", "two 5ecre7", "5ecre7-ü", "x" * 2000):
        path.write_text(bad)
        with pytest.raises(StartError, match="does not hold one key") as caught:
            KeyFile.open(path)
        assert "5ecre7" not in str(caught.value)
    with pytest.raises(StartError, match=r"is not there; .* makes a key"):
        KeyFile.open(tmp_path / "none")


def test_a_key_is_replaced_by_writing_another_into_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("bpg_5ecre7-1\n")
    path.chmod(0o600)
    file = KeyFile.open(path)
    path.write_text("bpg_5ecre7-2\n")
    assert file.read().reveal() == "bpg_5ecre7-2"
    path.write_text("")
    assert file.read().reveal() == "bpg_5ecre7-2", "the last good one stays"
    path.unlink()
    assert file.read().reveal() == "bpg_5ecre7-2"
    assert "of no use" in caplog.text
    assert "5ecre7" not in caplog.text
