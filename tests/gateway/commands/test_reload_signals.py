"""SIGHUP, SIGUSR1 and SIGUSR2: files are looked at again, no stream is cut, nothing ends."""

from __future__ import annotations

import json
import re
import signal
import ssl
from datetime import UTC, datetime
from pathlib import Path

import trio
import trustme

from bridgepool.gateway.control._encryption import generate_encryption_key
from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.gateway.providers import open_provider_file
from bridgepool.http import open_upstream_client
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.plane import make_plane
from tests.e2e.process import GatewayProcess, run_gateway, run_gateway_of
from tests.gateway.commands.test_admin_port import ADMIN, admin_url, raw
from tests.gateway.commands.test_admin_port import ask as ask_admin
from tests.gateway.control.test_process import run_control
from tests.simulated import Gate
from tests.waiting import wait_until

STREAM = json.dumps({"model": "m", "stream": True}).encode()
KEPT = "file cannot be used; keeping what it held before"
HANGUP_LINE = "log files reopened; looking at all files again"


async def test_reload_signals_cut_no_stream_and_do_not_end_the_gateway(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    gate = Gate(north)
    said = bytearray()

    async def stream(gateway: GatewayProcess) -> None:
        async with (
            open_upstream_client(gateway.url) as client,
            client.request(b"POST", b"/ai/v1/chat/completions", (), STREAM) as response,
        ):
            while piece := await response.receive_some():
                said.extend(piece)

    async with run_gateway(file) as gateway:
        async with trio.open_nursery() as clients:
            clients.start_soon(stream, gateway)
            await gate.reached.wait()
            for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP):
                gateway.signal(number)
            # Its line shows that the one without a line was received.
            await gateway.wait_event("log files reopened", signal="SIGUSR1")
            await gateway.wait_event(HANGUP_LINE, signal="SIGHUP")
            gate.opened.set()
        assert said.count(b'"content"') == len(WORDS)
        assert said.endswith(b"data: [DONE]\n\n")
        [line] = await gateway.stop()
        assert line["outcome"] == "complete"


async def test_the_access_log_is_opened_anew_after_each_rotation(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file, log, old = (tmp_path / name for name in ("providers.toml", "access.log", "access.log.1"))
    write(file, provider("ai", "openai", north.openai_url))

    async def ask(gateway: GatewayProcess, name: str) -> None:
        async with (
            open_upstream_client(gateway.url) as client,
            client.request(b"GET", f"/{name}/v1/models".encode()) as response,
        ):
            await response.receive_some()

    async with run_gateway(file, "--access-log", str(log)) as gateway:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            await ask(gateway, "ai")
            await wait_until(log.exists)
            log.rename(old.with_suffix(f".{number.name}"))
            gateway.signal(number)
            await gateway.wait_event("log files reopened", signal=number.name)
            await ask(gateway, "ai")
        await ask(gateway, "ai")
        await gateway.stop()
    rotated = [old.with_suffix(f".{name}").read_text() for name in ("SIGHUP", "SIGUSR1")]
    assert "".join((*rotated, log.read_text())).count("\n") == 5
    assert log.read_text().count("\n") >= 2


async def test_a_log_file_that_cannot_be_reopened_goes_on(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file, folder = tmp_path / "providers.toml", tmp_path / "logs"
    folder.mkdir()
    write(file, provider("ai", "openai", north.openai_url))
    async with run_gateway(file, "--access-log", str(folder / "access.log")) as gateway:
        (folder / "access.log").unlink()
        folder.rmdir()
        gateway.signal(signal.SIGUSR1)
        event = "log file cannot be reopened; keeping the open one"
        line = await gateway.wait_event(event, level="error")
        assert line["error"] == "No such file or directory"
        await gateway.stop()


def issue(
    folder: Path, ca: trustme.CA, begin: datetime | None = None, end: datetime | None = None
) -> None:
    """Write a certificate of this CA, and its key."""
    made = ca.issue_cert("localhost", "127.0.0.1", not_before=begin, not_after=end)
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    made.private_key_pem.write_to_path(folder / "key.pem")


async def trusts(ca: trustme.CA, address: str) -> bool:
    """Make a connection; return whether its certificate is of this CA."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    port = int(address.rpartition(":")[2])
    stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        return False
    finally:
        await trio.aclose_forcefully(stream)
    return True


async def test_a_renewed_certificate_is_used_after_hangup_and_a_bad_one_is_not(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file, first, second = tmp_path / "providers.toml", trustme.CA(), trustme.CA()
    write(file, provider("ai", "openai", north.openai_url))
    issue(tmp_path, first)
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    async with run_gateway(file, *tls, listen=["localhost:0"]) as gateway:
        assert await trusts(first, gateway.address)

        issue(tmp_path, second)
        gateway.signal(signal.SIGHUP)
        await gateway.wait_event("file read again", kind="certificate")
        assert await trusts(second, gateway.address)
        assert not await trusts(first, gateway.address)

        seen = len(gateway.stderr.lines)
        first.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "key.pem")
        gateway.signal(signal.SIGHUP)
        await gateway.wait_event(KEPT, after=seen, level="error", kind="certificate")
        assert await trusts(second, gateway.address)

        issue(tmp_path, second, datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
        gateway.signal(signal.SIGHUP)
        await gateway.wait_event("certificate has ended; clients refuse it", level="error")
        assert await gateway.stop() == []


async def test_a_ca_file_is_read_again_at_hangup(north: SimulatedUpstream, tmp_path: Path) -> None:
    plane, ca = await make_plane(tmp_path / "plane"), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    options = plane.options("--ca-file", str(file), scheme="wss")
    async with plane.up(server), run_gateway_of(*options) as gateway:
        await gateway.wait_event("connection to the control plane failed: ")
        file.write_text("no certificate")
        gateway.signal(signal.SIGHUP)
        await gateway.wait_event(KEPT, level="error", kind="CA certificates")
        ca.cert_pem.write_to_path(file)
        gateway.signal(signal.SIGHUP)
        await gateway.wait_event("connected to the control plane")
        assert await gateway.stop() == []


def write_prices(file: Path, price: str, currency: str = "USD") -> None:
    """Write a table by which each token costs so much, in millionths."""
    row = f'[[models]]\nmodel = "*"\ninput = {price}\noutput = {price}\n'
    file.write_text(f'currency = "{currency}"\n{row}')


async def test_a_price_table_is_read_again_at_hangup_and_a_bad_one_is_not(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    """It was read once. New prices needed a restart, and budgets in memory began anew with it."""
    file, prices, log = (tmp_path / name for name in ("providers.toml", "prices.toml", "usage"))
    row, key = client_row_and_key("web")
    write(file, provider("ai", "openai", north.openai_url), f"{row}\nmoney_per_month = 100")
    write_prices(prices, "1e6")
    options = ("--price-table", str(prices), "--usage-log", str(log), *ADMIN)
    own = ((b"authorization", f"Bearer {key}".encode()),)
    async with run_gateway(file, *options) as gateway:

        async def ask() -> int:
            async with (
                open_upstream_client(gateway.url) as client,
                client.request(
                    b"POST", b"/ai/v1/chat/completions", own, b'{"model": "m"}'
                ) as response,
            ):
                while await response.receive_some():
                    pass
            return response.status

        async def hang_up(event: str, **fields: str) -> None:
            seen = len(gateway.stderr.lines)
            gateway.signal(signal.SIGHUP)
            line = await gateway.wait_event(event, after=seen)
            assert fields.items() <= line.items(), line

        assert await ask() == 200
        write_prices(prices, "-1")
        named = f"--price-table {prices}:"
        why = "[[models]] row 1: {}: is not a number, 0 or more"
        errors = "; ".join(map(why.format, ("input", "output")))
        await hang_up(KEPT, path=str(prices), error=f"{named} {errors}", level="error")
        url = await admin_url(gateway)
        [held] = (await ask_admin(url, "/status"))[1]["files"]
        assert held.pop("age") > 0
        assert held == {
            "kind": "price table",
            "path": str(prices),
            "problem": f"{named} {errors}",
        }
        assert await ask() == 200
        write_prices(prices, "1e7", currency="EUR")
        error = "currency: is EUR, but budgets are counted in USD until the gateway is restarted"
        await hang_up(KEPT, error=f"{named} {error}")
        prices.unlink()
        await hang_up(KEPT, error=f"{named} cannot be read: No such file or directory")
        assert await ask() == 200
        write_prices(prices, "1e7")
        await hang_up("file read again", path=str(prices))
        [held] = (await ask_admin(url, "/status"))[1]["files"]
        assert held["problem"] is None
        budgets = (await ask_admin(url, "/status"))[1]["budgets"]
        assert (budgets["most_spent"], budgets["in_memory"]) == ([], True)
        assert [await ask(), await ask()] == [200, 429]  # three times 8, and 80
        budgets = (await ask_admin(url, "/status"))[1]["budgets"]
        assert (budgets["spent"], budgets["nearly_spent"]) == (1, 0)
        [budget] = budgets["most_spent"]
        assert re.fullmatch(r"20\d\d-\d\d-01T00:00:00Z", budget.pop("ends"))
        budgeted = {"scope": "client", "id": "web", "rule": "money_per_month"}
        assert budget == budgeted | {"limit": 100, "spent": 104}
        metrics = (await raw(url, "/metrics")).splitlines()
        for state, count in (("spent", 1), ("nearly_spent", 0)):
            labels = f'rule="money_per_month",state="{state}"'
            assert f"bridgepool_client_budgets{{{labels}}} {count}" in metrics
        await gateway.stop()
    costs = [json.loads(line)["cost"] for line in log.read_text().splitlines()]
    assert costs == [8, 8, 8, 80, 0]


async def test_looking_again_at_a_provider_file_sends_a_notice(tmp_path: Path) -> None:
    async with open_provider_file(tmp_path / "providers.toml") as source:
        source.look_again()
        with trio.fail_after(60):
            await source.changes.receive()


async def test_a_control_plane_survives_reload_signals_and_uses_a_renewed_certificate(
    tmp_path: Path,
) -> None:
    first, second = trustme.CA(), trustme.CA()
    issue(tmp_path, first)
    context = ssl.create_default_context()
    first.configure_trust(context)
    second.configure_trust(context)
    url = str(tmp_path / "control.db")
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    listen = ("--listen", "localhost:0", "--rpc-listen", "localhost:0")
    async with run_control(tmp_path, url, *tls, *listen, context=context) as control:
        run, api, rpc = control.run, control.api, control.rpc
        for number in (signal.SIGUSR2, signal.SIGUSR1):
            run.signal(number)
        await run.wait_event("log files reopened", signal="SIGUSR1")
        assert await trusts(first, api)
        issue(tmp_path, second)
        run.signal(signal.SIGHUP)
        await run.wait_event("file read again", kind="certificate")
        assert await trusts(second, api)
        assert await trusts(second, rpc)
        await control.ask("GET", "/api/v1/providers")
        run.signal(signal.SIGTERM)
        assert await run.wait() == 0


async def test_the_status_of_a_control_plane_has_why_encryption_keys_cannot_be_used(
    tmp_path: Path,
) -> None:
    keys, good = tmp_path / "keys", generate_encryption_key().reveal()
    keys.write_text(good)
    options = ("--encryption-key-file", str(keys), *ADMIN)
    async with run_control(tmp_path, str(tmp_path / "control.db"), *options) as control:
        url = await admin_url(control.run)
        for content, event, problem in (
            ("", KEPT, f"{keys}: there is no encryption key"),
            (good, "file read again", ""),
        ):
            seen = len(control.run.stderr.lines)
            keys.write_text(content)
            control.run.signal(signal.SIGHUP)
            await control.run.wait_event(event, after=seen, kind="encryption keys", path=str(keys))
            [file] = (await ask_admin(url, "/status"))[1]["files"]
            assert (file["kind"], file["path"]) == ("encryption keys", str(keys))
            assert (file["problem"] or "").partition(";")[0] == problem
