"""A whole run with known secrets; then a search for them in all that it left and showed.

By design, secrets are in three places only: in the files made to hold one (mode 0600), in the
one answer that makes a key, and in a snapshot file without encryption. Clients put keys where
none belong, too: in queries, paths and methods. What a provider itself answers is its own.
"""

from __future__ import annotations

import base64
import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import httpx2
import psycopg
import pytest
import trio

from bridgepool.gateway.control._encryption import generate_encryption_key
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.e2e.process import GatewayProcess, run_command
from tests.plain_http import plain_client
from tests.system.asking import Home
from tests.system.command import run_to_end
from tests.system.rig import make_home, run_front, run_plane
from tests.system.secret_scan import Vault

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@attrs.frozen
class Run:
    """One run: those who act in it tell the vault what they saw."""

    home: Home
    vault: Vault

    async def command(
        self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None, good: bool = True
    ) -> str:
        """Run a command, by the API; return its standard output."""
        where = {
            "BRIDGEPOOL_URL": f"http://127.0.0.1:{self.home.api_port}",
            "BRIDGEPOOL_ADMIN_KEY": self.home.admin_file.read_text().strip(),
        }
        done = await run_to_end(*arguments, env=where | (env or {}), stdin=stdin)
        shown = " ".join(arguments[:2])
        assert (done.status == 0) == good, (shown, done.err)
        self.vault.see(f"standard error of {shown}", done.err)
        if arguments[:2] != ("keys", "create"):
            self.vault.see(f"standard output of {shown}", done.out)
        return done.out

    async def ask(self, url: str, method: str, path: str, key: str, **more: Any) -> httpx2.Response:
        """Make a request with a key, and look at all of the answer."""
        headers = {"Authorization": f"Bearer {key}"} | more.pop("headers", {})
        async with plain_client(url, headers=headers) as client:
            answer = await client.request(method, path, **more)
        self.vault.see(f"answer to {method} {path[:20]}: headers", str(answer.headers))
        self.vault.see(f"answer to {method} {path[:20]}: body", answer.content)
        return answer

    async def api(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Make a request of the API."""
        url = f"http://127.0.0.1:{self.home.api_port}"
        admin = self.home.admin_file.read_text().strip()
        return await self.ask(url, method, path, more.pop("key", admin), **more)


async def _echo(stream: trio.SocketStream) -> None:
    """Answer as a bad upstream does: the key is wrong, and here it is."""
    async with stream:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := await stream.receive_some()):
                return
            head += more
        [line] = [x for x in head.split(b"\r\n") if x.lower().startswith(b"authorization")]
        await stream.send_all(
            b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nX-Echo: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (line.split(b" ")[-1], len(line), line)
        )
        await stream.send_eof()
        while await stream.receive_some():  # the rest of the request
            pass


async def _change_by_commands(run: Run, upstream: SimulatedUpstream, echo: str) -> None:
    vault = run.vault
    add = ("--type", "openai", "--allow-private", "--base-url")
    await run.command(
        *("providers", "add", "ai", *add, upstream.openai_url, "--keys-stdin"),
        *("--header-from-env", "X-Team=TEAM"),
        stdin=vault.new("stdin") + "\n",
        env={"TEAM": vault.new("header")},
    )
    await run.command(
        *("providers", "add", "echo", *add, echo, "--keys-from-env", "MY_KEY"),
        env={"MY_KEY": vault.new("environment")},
    )
    await run.command("providers", "update", "ai", "--keys-stdin", stdin=vault.new("rotated"))
    applied = (
        f'[[providers]]\nname = "ai"\ntype = "openai"\nallow_private = true\n'
        f'base_url = "{upstream.openai_url}"\nkeys = ["{vault.new("applied")}"]\n'
    )
    await run.command("providers", "apply", "-", stdin=applied)
    # What is wrong, and holds a secret where none belongs.
    wrong = vault.new("wrong")
    bad = partial(run.command, good=False)
    misplaced = applied.replace('name = "ai"', f'name = "{wrong}!"') + f'"{wrong}" = 1\n'

    async def make_key(kind: str) -> None:
        key = await run.command("keys", "create", kind, "made")
        vault.keep(f"made {kind}", key.strip())

    for text in (applied + f"keys = {wrong}", misplaced):
        await bad("providers", "apply", "-", stdin=text)
    await bad(
        *("providers", "add", "bad", *add, "https://a.example", "--keys-stdin"),
        stdin=f"{wrong} with a space",
    )
    await bad("providers", "list", env={"BRIDGEPOOL_ADMIN_KEY": wrong})
    for kind in ("client", "gateway", "admin"):
        await make_key(kind)
    for words in (
        *("providers list", "providers list --json", "providers show ai", "providers export"),
        *("providers show ai --json", "keys list --revoked", "gateways", "gateways --json"),
        *("audit", "audit --json"),
    ):
        await run.command(*words.split())


async def _misuse_the_api(run: Run) -> None:
    secret = run.vault.new("misplaced")
    good = {"name": "x", "type": "openai", "base_url": "https://a.example/v1"}
    for wrong in (
        {"name": secret + "/"},
        {"type": secret},
        {"base_url": secret},
        {"base_url": f"https://user:{secret}@a.example"},
        {"base_url": f"https://a.example/v1?key={secret}"},
        {"keys": secret},
        {"keys": [secret]},
        {"keys": [{"id": secret}]},
        {"keys": [{"value": secret + " "}]},
        {"headers": {"x": {secret: 1}}},
        {"headers": {f"{secret}:": "x"}},
        {"key_env": secret},
        {secret: 1},
    ):
        answer = await run.api("POST", "/api/v1/providers", json=good | wrong)
        assert answer.status_code == 422, wrong
    as_json = {"Content-Type": "application/json"}
    for body in (f'{{"keys": ["{secret}', f'"{secret}"', secret, f'{{"{secret}": 1, "{secret}'):
        answer = await run.api("POST", "/api/v1/providers", content=body, headers=as_json)
        assert answer.status_code in (400, 422)
    for path in (f"providers/{secret}", f"audit?{secret}=1", f"audit?before={secret}", secret):
        answer = await run.api("GET", f"/api/v1/{path}")
        assert answer.status_code in (404, 422)
    for key in (secret, f"bpa_aaaaaaaaaaaa_{secret[-43:]:a>43}"):
        answer = await run.api("GET", "/api/v1/providers", key=key)
        assert answer.status_code == 401
    await run.api("GET", "/api/v1/audit?limit=1000")
    await run.api("GET", "/api/v1/export")
    await run.api("GET", "/openapi.json")


async def _make_requests(run: Run, gateway: GatewayProcess) -> None:
    key = run.home.client_key
    with trio.fail_after(60):
        while (  # noqa: ASYNC110 -- it follows the control plane
            await run.ask(gateway.url, "POST", "/ai/v1/chat/completions", key, json=CHAT)
        ).status_code != 200:
            await trio.sleep(0.05)
    echoed = await run.ask(gateway.url, "POST", "/echo/v1/chat/completions", key, json=CHAT)
    assert echoed.status_code == 502  # the key was the gateway's: nothing of that answer
    for path in ("/healthz", "/readyz", "/metrics"):
        await run.ask(gateway.url, "GET", path, key)


async def _ask_with_a_bad_key(run: Run, gateway: GatewayProcess, bad: str) -> None:
    answer = await run.ask(gateway.url, "POST", "/ai/v1/models", bad)
    assert answer.status_code == 401
    await run.ask(gateway.url, "GET", f"/ai/v1/models?api_key={quote(bad)}", bad)


def _percents(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _paths_with(key: str) -> list[str]:
    """Return paths that the gateway itself has to answer, with a key somewhere."""
    shapes = (
        *("/{}", "/{}/ai/v1/models", "/ai/{}", "/ai/v1/{}/chat", "//{}", "/ai/v1/files/{}"),
        *("/ai/v1/chat/completions;{}", "/ai/v1/chat/completions/../{}", "/bad%2F{}"),
    )
    forms = (key, _percents(key), f"Bearer%20{key}", base64.b64encode(key.encode()).decode())
    return [shape.format(form) for form in forms for shape in shapes]


async def _put_keys_into_paths(run: Run, gateway: GatewayProcess) -> None:
    """Do what clients do whose base URL has the key in it, or whose arguments are swapped."""
    vault, good = run.vault, run.home.client_key
    wrong = vault.secrets["wrong"]
    asked = [(path, good) for key in (good, wrong) for path in _paths_with(key)]
    asked += [(path, wrong) for path in _paths_with(wrong)]
    async with plain_client(gateway.url, timeout=30) as client:

        async def ask(path: str, key: str) -> None:
            bearer = {"Authorization": f"Bearer {key}"}
            answer = await client.get(httpx2.URL(gateway.url + path), headers=bearer)
            # A key of an upstream can have the form of a provider's name, which gets a 200.
            bare = re.fullmatch("/[a-z0-9-]+", path) is not None
            assert answer.status_code in (401, 404) or (bare and answer.status_code == 200), path
            vault.see("answer to a path with a key", answer.content + str(answer.headers).encode())

        async with trio.open_nursery() as nursery:
            for path, key in asked:
                nursery.start_soon(ask, path, key)
        bearer = {"Authorization": f"Bearer {good}"}
        for form in (good, _percents(good)):
            answer = await client.get(f"/ai/v1/models/{form}", headers=bearer)
            assert b"has no route" in answer.content  # it is open, but no key of ours is sent on
        answer = await client.request(good, "/ai/v1/models", headers=bearer)
        assert answer.status_code == 404
        vault.see("answer to a method", answer.content + str(answer.headers).encode())


async def _use_the_gateway(run: Run, gateway: GatewayProcess) -> None:
    await _make_requests(run, gateway)
    async with trio.open_nursery() as clients:
        clients.start_soon(_put_keys_into_paths, run, gateway)
        for label in ("wrong", "made gateway", "made admin"):
            clients.start_soon(_ask_with_a_bad_key, run, gateway, run.vault.secrets[label])


async def _put_keys_into_paths_of_the_plane(run: Run) -> None:
    """Do the same to both ports of a control plane."""
    key = run.vault.secrets["wrong"]
    for form in (key, _percents(key)):
        for path in ("/{}", "/api/v1/{}", "/api/v1/providers/{}", "/api/v1/providers/{}/"):
            for method in ("GET", "DELETE", "PUT"):
                answer = await run.api(method, path.format(form), json={})
                assert answer.status_code in (404, 405, 422)
        assert (await run.api("GET", f"/api/v1/{form}", key=key)).status_code == 401
    url = f"http://127.0.0.1:{run.home.rpc_port}"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    queries = (f"version={key}", f"version=1.0&key={key}")
    for path in (f"{place}?{query}" for place in ("/", f"/{key}") for query in queries):
        answer = await run.ask(url, "GET", path, key, headers=upgrade)
        assert answer.status_code in (400, 401, 404)
        await run.ask(url, "GET", path, key)  # no websocket at all


def _see_database(vault: Vault, home: Home) -> None:
    if "://" not in home.store_url:
        files = sorted(home.folder.glob("store.db*"))
        assert {"store.db", "store.db-wal", "store.db-shm"} <= {file.name for file in files}
        for file in files:
            assert file.stat().st_mode & 0o077 == 0, file
        vault.see_files("database", *files)
        return
    with psycopg.connect(home.store_url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname NOT IN "
            "('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) >= 6
        for (table,) in tables:
            rows = connection.execute(f'SELECT t::text FROM "{table}" t'.encode()).fetchall()
            vault.see(f"table {table}", "\n".join(row[0] for row in rows))


def _keep_the_key_files(vault: Vault, home: Home) -> None:
    for file in (home.encryption_file, home.admin_file, home.gateway_file, home.client_file):
        assert file.stat().st_mode & 0o077 == 0, file
        vault.keep(file.name, file.read_text().strip())


@pytest.fixture
def vault() -> Vault:
    return Vault()


async def test_no_secret_of_a_whole_run_is_shown(
    database_url: str,
    tmp_path: Path,
    vault: Vault,
    north: SimulatedUpstream,
    nursery: trio.Nursery,
) -> None:
    postgres = "://" in database_url
    home = await make_home(tmp_path, database_url if postgres else None)
    run = Run(home, vault)
    [listener] = await nursery.start(partial(trio.serve_tcp, _echo, 0, host="127.0.0.1"))
    echo = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
    clear, sealed = tmp_path / "clear.snapshot", tmp_path / "sealed.snapshot"
    snapshot_key = tmp_path / "snapshot.key"
    snapshot_key.write_text(vault.keep("snapshot key", generate_encryption_key().reveal()))
    snapshot_key.chmod(0o600)
    with trio.fail_after(90):
        async with run_plane(home) as plane:
            _keep_the_key_files(vault, home)
            with_clear = (*home.standalone(), "--snapshot-file", str(clear))
            with_sealed = (
                *("gateway", "--listen", "127.0.0.1:0", "--log-format", "console"),
                *(*home.standalone(), "--snapshot-file", str(sealed)),
                *("--snapshot-key-file", str(snapshot_key)),
            )
            embedded = home.embedded()
            async with (
                run_front(home, *with_clear) as (_, first),
                run_front(home, *embedded) as (_, second),
                run_command(*with_sealed) as third,
            ):
                listening = await third.stdout.wait_for(lambda x: x.startswith("listening on"))
                third.urls.append(listening.removeprefix("listening on "))
                await _change_by_commands(run, north, echo)
                async with trio.open_nursery() as clients:  # refused keys are answered ever later
                    clients.start_soon(_misuse_the_api, run)
                    clients.start_soon(_put_keys_into_paths_of_the_plane, run)
                    for gateway in (first, second, third):
                        clients.start_soon(_use_the_gateway, run, gateway)
                for process in (plane, first, second, third):
                    vault.see_process("a process", process.process.pid)
                await run.command("providers", "remove", "echo", "--allow-empty")
                _see_database(vault, home)
                for process in (plane, first, second, third):
                    process.process.terminate()
                for process in (plane, first, second, third):
                    await process.wait()
                    await process.stdout.wait_end()
                    await process.stderr.wait_end()
                    vault.see("the log of a process", process.everything)
    for file in (clear, sealed):
        assert file.stat().st_mode & 0o777 == 0o600
    assert vault.secrets["applied"].encode() in clear.read_bytes()  # see above: by design
    vault.see_files("snapshot", sealed)
    assert sum(len(what) for _, what in vault.seen) > 50_000
    assert vault.found() == [], "\n".join(vault.found())


@pytest.mark.parametrize("how", ["plain", "quoted", "base64", "json", "half", "bytes"])
def test_the_search_finds_what_is_planted(vault: Vault, how: str) -> None:
    secret = vault.new("planted")
    planted: dict[str, bytes] = {
        "plain": f"key={secret}".encode(),
        "quoted": quote(secret + "/é").encode(),
        "base64": b"x" + base64.b64encode(b"user:" + secret.encode()),
        "json": json.dumps({"a": [secret]}).encode(),
        "half": secret[8:-4].encode(),
        "bytes": b"\0\xff" + secret.encode() + b"\xfe",
    }
    vault.see("nothing", b"harmless" * 100)
    assert vault.found() == [], "\n".join(vault.found())
    vault.see("a log", planted[how])
    assert vault.found()
