"""The gateway process: signals, drain, ports, bad files, what it prints and what it never does."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import trio
from wsproto.events import Request, TextMessage

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.http import open_upstream_client
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import GatewayProcess, as_json, run_gateway
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.simulated import Gate

STREAM = json.dumps({"model": "m", "stream": True}).encode()


async def stream(gateway: GatewayProcess, result: list[bytes], broken: list[Exception]) -> None:
    """Stream one answer; what it said, and how it broke if it did."""
    async with (
        open_upstream_client(gateway.url) as client,
        client.request(b"POST", b"/ai/v1/chat/completions", (), STREAM) as response,
    ):
        try:
            while piece := await response.receive_some():
                result.append(piece)
        except Exception as error:
            broken.append(error)


async def refused(address: str) -> None:
    """Wait until nobody listens there any more."""
    host, _, port = address.partition(":")
    with trio.fail_after(60):
        while True:
            try:
                await (await trio.open_tcp_stream(host, int(port))).aclose()
            except OSError:
                return


async def test_a_first_signal_lets_streams_finish(
    north: SimulatedUpstream, tmp_path: Path, nursery: trio.Nursery
) -> None:
    file, gate = tmp_path / "providers.toml", Gate(north)
    write(file, provider("ai", "openai", north.openai_url))
    said: list[bytes] = []
    broken: list[Exception] = []
    async with run_gateway(file) as gateway:
        async with trio.open_nursery() as clients:
            clients.start_soon(stream, gateway, said, broken)
            await gate.reached.wait()
            gateway.signal(signal.SIGTERM)
            drain = await gateway.wait_event("draining", signal="SIGTERM")
            assert drain["requests"] == 1
            await refused(gateway.address)
            gate.opened.set()
        assert await gateway.wait() == 0
        await gateway.wait_event("stopped; every request had ended")
    assert not broken
    assert b"".join(said).count(b'"content"') == len(WORDS)
    assert b"".join(said).endswith(b"data: [DONE]\n\n")


async def test_a_second_signal_ends_at_once(north: SimulatedUpstream, tmp_path: Path) -> None:
    file, gate = tmp_path / "providers.toml", Gate(north)
    write(file, provider("ai", "openai", north.openai_url))
    said: list[bytes] = []
    broken: list[Exception] = []
    async with run_gateway(file) as gateway:
        async with trio.open_nursery() as clients:
            clients.start_soon(stream, gateway, said, broken)
            await gate.reached.wait()
            gateway.signal(signal.SIGINT)
            await gateway.wait_event("draining", signal="SIGINT")
            gateway.signal(signal.SIGTERM)
            assert await gateway.wait() == 1
        await gateway.wait_event("stopped; running requests were cut", requests_shutdown=1)
    assert len(broken) == 1, "the client's stream looked complete"


async def test_the_drain_timeout_ends_it(north: SimulatedUpstream, tmp_path: Path) -> None:
    file, gate = tmp_path / "providers.toml", Gate(north)
    write(file, provider("ai", "openai", north.openai_url))
    said: list[bytes] = []
    broken: list[Exception] = []
    async with (
        run_gateway(file, "--drain-timeout", "0.2") as gateway,
        trio.open_nursery() as clients,
    ):
        clients.start_soon(stream, gateway, said, broken)
        await gate.reached.wait()
        gateway.signal(signal.SIGTERM)
        assert await gateway.wait() == 1
    assert len(broken) == 1


async def test_in_the_shutdown_delay_it_serves_on_and_is_not_ready(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    """Load balancers send new connections until they have noticed; those must not be refused."""
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with run_gateway(file, "--shutdown-delay", "600") as gateway:
        async with open_upstream_client(gateway.url) as kept:
            async with kept.request(b"GET", b"/readyz") as response:
                assert response.status == 200
            gateway.signal(signal.SIGTERM)
            await gateway.wait_event("draining", shutdown_delay=600.0)
            async with open_upstream_client(gateway.url) as new:
                for client in (kept, new):
                    async with client.request(b"GET", b"/readyz") as response:
                        assert response.status == 503
                        assert json.loads(await response.receive_some())["reason"] == "draining"
                        assert (b"connection", b"close") in response.headers
                target = b"/ai/v1/chat/completions"
                async with new.request(b"POST", target, (), b"{}") as response:
                    assert response.status == 200
                    assert (b"connection", b"close") in response.headers
        gateway.signal(signal.SIGTERM)
        assert await gateway.wait() == 0, "a second signal ends the delay, too"


async def test_it_prints_each_listener_with_its_real_port_and_ends_idle_after_the_shutdown_delay(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    listen = ["127.0.0.1:0", "127.0.0.1:0"]
    async with run_gateway(file, "--shutdown-delay", "0.2", listen=listen) as gateway:
        assert gateway.stdout.lines[:2] == [f"listening on {url}" for url in gateway.urls]
        event = "no clients configured; serving every program on this machine"
        await gateway.wait_event(event, level="warning")
        for url in gateway.urls:
            async with (
                open_upstream_client(url) as client,
                client.request(b"GET", b"/readyz") as response,
            ):
                assert response.status == 200
        assert await gateway.stop() == []
        await gateway.wait_event("stopped; every request had ended")


async def test_saving_the_file_changes_the_running_gateway(
    north: SimulatedUpstream, south: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with run_gateway(file, "--expose-route-headers") as gateway:
        async with open_upstream_client(gateway.url) as client:

            async def ask() -> tuple[str, dict[bytes, bytes]]:
                async with client.request(
                    b"POST", b"/ai/v1/chat/completions", (), b'{"model": "m"}'
                ) as response:
                    body = json.loads(await response.receive_some())
                    return body["model"], dict(response.headers)

            model, headers = await ask()
            assert model == "m@north"
            assert headers[b"x-bridgepool-generation"] == b"1"
            assert headers[b"x-bridgepool-provider"] == b"ai"
            write(file, provider("ai", "openai", south.openai_url))
            await gateway.wait_event("providers replaced", generation=2)
            model, headers = await ask()
            assert model == "m@south"
            assert headers[b"x-bridgepool-generation"] == b"2"
            write(file, "[[providers]]\nname = 5")
            await gateway.wait_event("reload failed", level="warning")
            assert (await ask())[0] == "m@south"
        served = [line["generation"] for line in await gateway.stop()]
        assert served == [1, 2, 2]


async def test_on_other_addresses_it_has_clients(north: SimulatedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url), client_row_and_key("ada")[0])
    async with run_gateway(file, listen=["0.0.0.0:0"]) as gateway:
        await gateway.wait_event("clients configured", clients=1)


async def test_the_access_log_and_the_usage_log_go_to_files(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file, log, usage = tmp_path / "providers.toml", tmp_path / "access.log", tmp_path / "usage.log"
    write(file, provider("ai", "openai", north.openai_url))
    bodies = tmp_path / "bodies.jsonl"
    bodies.touch(mode=0o644)
    logs = ("--access-log", str(log), "--usage-log", str(usage))
    asked = ("--body-log", str(bodies), "--body-log-provider", "ai")
    async with run_gateway(file, *logs, *asked) as gateway:
        async with (
            open_upstream_client(gateway.url) as client,
            client.request(b"POST", b"/ai/v1/chat/completions?a=1", (), b"{}") as response,
        ):
            await response.receive_some()
        assert await gateway.stop() == []
    line = as_json(log.read_text())
    assert line["path"] == "/ai/v1/chat/completions"
    assert line["outcome"] == "complete"
    record = as_json(usage.read_text())
    assert (record["provider"], record["input_tokens"], record["output_tokens"]) == ("ai", 1, 7)
    recorded = as_json(bodies.read_text())
    assert (recorded["request"], "usage" in str(recorded["response"])) == ("{}", True)
    assert record["request_id"] == line["request_id"] == recorded["request_id"]
    assert stat.S_IMODE(bodies.stat().st_mode) == 0o600


async def test_no_secret_is_ever_printed(north: SimulatedUpstream, tmp_path: Path) -> None:
    """Runs into every error that there is a log line for, and looks for each secret used."""
    file = tmp_path / "providers.toml"
    row, key = client_row_and_key("ada")
    secrets = {
        "central": "sk-central-5ecre7",
        "environment": "sk-env-5ecre7",
        "wrong": "sk-wrong-5ecre7",
        "query": "query-5ecre7",
        "body": "body-5ecre7",
        "header": "header-5ecre7",
        "client": key,
    }
    good = (
        provider("ai", "openai", north.openai_url, key=secrets["central"]),
        provider("env", "openai", north.openai_url, key_env="BRIDGEPOOL_TEST_KEY"),
        provider("gone", "openai", "http://127.0.0.1:9/v1", key=secrets["central"]),
        row,
    )
    write(file, *good)
    environment = {"BRIDGEPOOL_TEST_KEY": secrets["environment"]}
    async with run_gateway(file, env=environment) as gateway:
        async with open_upstream_client(gateway.url) as client:
            for name in ("ai", "env", "gone", "none"):
                for token in (key, secrets["wrong"]):
                    headers = (
                        (b"authorization", b"Bearer " + token.encode()),
                        (b"x-extra", secrets["header"].encode()),
                    )
                    target = f"/{name}/v1/chat/completions?key={secrets['query']}"
                    body = json.dumps({"model": secrets["body"]}).encode()
                    async with client.request(b"POST", target.encode(), headers, body) as response:
                        answer = await response.receive_some()
                    if name != "ai":
                        continue
                    assert token.encode() not in answer
        seen = len(gateway.stderr.lines)
        write(file, f'[[providers]]\nname = "ai"\nkeys = ["{secrets["central"]}')
        await gateway.wait_event("reload failed", after=seen)
        seen = len(gateway.stderr.lines)
        write(file, provider("ai", "openai", north.openai_url, key=f"{secrets['central']} x"))
        await gateway.wait_event("reload failed", after=seen)
        assert len(await gateway.stop()) == 8
    for what, secret in secrets.items():
        assert secret not in gateway.everything, what


async def test_a_shutdown_closes_websockets_between_two_responses(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Else each of them takes the whole drain timeout, and is cut within a response then."""
    end_response = trio.Event()

    async def respond(socket: Socket, _request: Request) -> None:
        if not isinstance(await socket.next_event(), TextMessage):
            return
        await socket.send_text('{"type": "response.created", "response": {"id": "r"}}')
        await end_response.wait()
        await socket.send_text('{"type": "response.completed", "response": {}}')
        await socket.next_event()

    upstream = await start_upstream(nursery, respond)
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", upstream.url))
    async with (
        run_gateway(file) as gateway,
        connect_socket(gateway.address) as (idle, _),
        connect_socket(gateway.address) as (busy, _),
    ):
        await busy.send_text('{"type": "response.create", "model": "m"}')
        assert "created" in str(await busy.receive())
        gateway.signal(signal.SIGTERM)
        assert await idle.receive_close() == (1012, "shutting_down")
        assert not busy.events
        end_response.set()
        assert "completed" in str(await busy.receive())
        assert await busy.receive_close() == (1012, "shutting_down")
        assert await gateway.wait() == 0
        await gateway.wait_event("stopped; every request had ended", requests_complete=2)
