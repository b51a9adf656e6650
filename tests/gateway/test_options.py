"""Which options go together."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway._control_options import ControlPlaneOptions
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.commands import app
from bridgepool.gateway.serving._listening import Address, StartError
from bridgepool.gateway.sources._control_source import check_url, open_key_file

FILE = Path("any")
KEPT = "file cannot be used; keeping what it held before"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (GatewayOptions(), "given: none"),
        (GatewayOptions(providers=FILE, store="a.db"), "given: --providers and --store"),
        (GatewayOptions(control="ws://h:1"), "--control requires --key-file"),
        (GatewayOptions(providers=FILE, key_file=FILE), "--key-file requires --control"),
        (GatewayOptions(store="a.db", snapshot_file=FILE), "--snapshot-file requires --control"),
        (
            GatewayOptions(providers=FILE, encryption_key_file=FILE),
            "-key-file requires --store",
        ),
        (
            GatewayOptions(control="ws://h:1", key_file=FILE, snapshot_key_file=FILE),
            "requires --snapshot-file",
        ),
        (GatewayOptions(providers=FILE, max_connections=0), "--max-connections"),
        (GatewayOptions(providers=FILE, max_connections_per_peer=0), "--max-connections-per-peer"),
        (GatewayOptions(providers=FILE, trusted_proxy=("10.0.0.0/99",)), "--trusted-proxy 10"),
        (GatewayOptions(providers=FILE, proxy_protocol=True), "requires --trusted-proxy"),
        (GatewayOptions(providers=FILE, metrics_by_client=True), "requires --admin-listen"),
        (GatewayOptions(providers=FILE, max_stale=0.0), "--max-stale"),
        (GatewayOptions(providers=FILE, no_retry_status=302), "--no-retry-status"),
        (GatewayOptions(providers=FILE, cors_origin=("*",)), "--cors-origin: '\\*' is not"),
        (GatewayOptions(providers=FILE, max_websockets_per_client=0), "--max-websockets-per-"),
        (GatewayOptions(providers=FILE, max_websocket_age=0), "--max-websocket-age"),
        (GatewayOptions(providers=FILE, max_concurrent=-1), "--max-concurrent"),
        (GatewayOptions(providers=FILE, max_waiting=-1), "--max-waiting"),
        (GatewayOptions(providers=FILE, wait_timeout=float("inf")), "--wait-timeout"),
        (GatewayOptions(providers=FILE, drain_timeout=-1), "--drain-timeout"),
        (GatewayOptions(providers=FILE, drain_timeout=float("nan")), "--drain-timeout"),
        (GatewayOptions(providers=FILE, shutdown_delay=float("inf")), "--shutdown-delay"),
        (GatewayOptions(providers=FILE, max_body_bytes=-1), "--max-body-bytes"),
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


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (ControlPlaneOptions(), "specify --store, or set BRIDGEPOOL_STORE"),
        (ControlPlaneOptions(store="a.db", max_keys=0), "--max-keys must be from 1 to 64"),
        (ControlPlaneOptions(store="a.db", max_keys=65), "--max-keys must be from 1 to 64"),
    ],
)
def test_options_of_the_control_plane_are_checked(options: ControlPlaneOptions, why: str) -> None:
    with pytest.raises(StartError, match=why):
        options.check()
    ControlPlaneOptions(store="a.db").check()


def _parse(*arguments: str) -> GatewayOptions | ControlPlaneOptions:
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    options = bound.kwargs["options"]
    assert isinstance(options, GatewayOptions | ControlPlaneOptions)
    return options


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bridgepool.toml"
    file.write_text(
        '[gateway]\nlisten = ["a:1", "b:2"]\ndrain-timeout = 1\nmax-stale = 1\n'
        "max-connections = 1\nexpose-route-headers = true\n"
        '[control-plane]\nrpc-listen = ["c:3"]\n'
    )
    monkeypatch.setenv("BRIDGEPOOL_GATEWAY_MAX_STALE", "2")
    monkeypatch.setenv("BRIDGEPOOL_GATEWAY_MAX_CONNECTIONS", "2")
    monkeypatch.setenv("BRIDGEPOOL_CONTROL_PLANE_LISTEN", "d:4 e:5")
    assert _parse("gateway", "--config", str(file), "--max-connections", "3") == GatewayOptions(
        config=file,
        listen=("a:1", "b:2"),
        drain_timeout=1.0,
        max_stale=2.0,
        max_connections=3,
        expose_route_headers=True,
    )
    monkeypatch.setenv("BRIDGEPOOL_CONTROL_PLANE_CONFIG", str(file))
    assert _parse("control-plane") == ControlPlaneOptions(
        config=file, listen=("d:4", "e:5"), rpc_listen=("c:3",)
    )


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Service files write one so that has no value."""
    for name in ("LISTEN", "MAX_STALE", "EXPOSE_ROUTE_HEADERS", "CONFIG", "PROVIDERS", "STORE"):
        monkeypatch.setenv(f"BRIDGEPOOL_GATEWAY_{name}", "")
    monkeypatch.setenv("BRIDGEPOOL_GATEWAY_DRAIN_TIMEOUT", " ")
    expected = GatewayOptions(max_connections=3)
    assert _parse("gateway", "--max-connections", "3") == expected


def test_the_help_of_a_program_is_shown_whole_and_in_the_list_by_its_first_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What only the docstring of a program said was shown nowhere."""

    def shown(*command: str) -> str:
        with pytest.raises(SystemExit):
            app([*command, "--help"])
        return re.sub(r"[│\s]+", " ", capsys.readouterr().out)

    for name in ("gateway", "hash-key", "control-plane"):
        text = re.sub(r"\s+", " ", app[name].help.replace("`", "")).strip()
        assert text in shown(name)
        assert text.partition(".")[0] in shown()
    assert "BRIDGEPOOL_GATEWAY_DRAIN_TIMEOUT" in shown("gateway")


def test_what_is_wrong_with_the_file_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bridgepool.toml"
    file.write_text("[gateway]\ndrain-timeuot = 1\n")
    with pytest.raises(CycloptsError, match="drain-timeuot"):
        _parse("gateway", "--config", str(file))
    file.write_text("[gateway\n")
    for path, why in ((file, "line 1"), (tmp_path / "none.toml", "No such file")):
        with pytest.raises(SystemExit) as caught:
            _parse("gateway", "--config", str(path))
        assert caught.value.code == 2
        assert f"--config {path}: " in (said := capsys.readouterr().err)
        assert why in said


def test_the_source_is_asked_three_times_before_it_is_too_old() -> None:
    options = GatewayOptions(providers=FILE, max_stale=60.0)
    assert options.settings([Address("127.0.0.1", 0)]).poll_interval == 20.0
    assert options.settings([Address("127.0.0.1", 0)]).allow_anonymous
    assert not options.settings([Address("127.0.0.1", 0), Address("::", 0)]).allow_anonymous
    behind_a_proxy = GatewayOptions(providers=FILE, trusted_proxy=("127.0.0.1",))
    assert not behind_a_proxy.settings([Address("127.0.0.1", 0)]).allow_anonymous


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
    assert "cross the network unencrypted" in caplog.text


async def test_a_key_file_holds_one_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    path.write_text("bpg_5ecre7\n")
    path.chmod(0o600)
    assert (await open_key_file(path)).value.reveal() == "bpg_5ecre7"
    assert not caplog.records
    path.chmod(0o644)
    await open_key_file(path)
    assert "readable by other users" in caplog.text
    for bad in ("", "\n", "two 5ecre7", "5ecre7-ü", "x" * 2000):
        path.write_text(bad)
        with pytest.raises(StartError, match="does not hold one key") as caught:
            await open_key_file(path)
        assert "5ecre7" not in str(caught.value)
    with pytest.raises(StartError, match=r"does not exist; .* makes a key"):
        await open_key_file(tmp_path / "none")


async def test_a_key_is_replaced_by_writing_another_into_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("bpg_5ecre7-1\n")
    path.chmod(0o600)
    file = await open_key_file(path)
    for content, logged, held in (
        ("bpg_5ecre7-1", "", "bpg_5ecre7-1"),
        ("bpg_5ecre7-2", "file read again", "bpg_5ecre7-2"),
        ("", KEPT, "bpg_5ecre7-2"),
        ("", "", "bpg_5ecre7-2"),
        (None, KEPT, "bpg_5ecre7-2"),
        ("bpg_5ecre7-2", "file read again", "bpg_5ecre7-2"),
    ):
        path.unlink() if content is None else path.write_text(f"{content}\n")
        with caplog.at_level(logging.INFO):
            await file.read_again(log_all=False)  # as for each connection
        assert caplog.messages == [logged] * bool(logged)
        caplog.clear()
        assert file.value.reveal() == held
        assert (file.problem is None) == bool(content)
        assert "5ecre7" not in (file.problem or "")
    assert "5ecre7" not in caplog.text


@pytest.mark.parametrize("target", ["-", "none", "access.log"])
def test_the_access_log_may_be_a_hyphen(target: str) -> None:
    for program in ("gateway", "control-plane"):
        assert _parse(program, "--access-log", target).access_log == target


def test_settings_of_an_embedded_gateway_are_checked() -> None:
    text: Any = "10"
    with pytest.raises(TypeError, match="drain_timeout must be a number, not the str '10'"):
        GatewaySettings(drain_timeout=text)
    with pytest.raises(ValueError, match="max_stale must be more than 0 seconds, not -1"):
        GatewaySettings(max_stale=-1)
    with pytest.raises(TypeError, match="max_bridges must be a number, not the bool True"):
        GatewaySettings(max_bridges=True)
