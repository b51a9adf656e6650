"""A wrong or stale encryption key is an outage that everybody sees: at the start, in logs, in
`/readyz`, in the commands; and nothing is written with it.
"""

from __future__ import annotations

import json
import socket
from functools import partial
from pathlib import Path

import pytest

from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway._process import open_source
from bridgepool.gateway.control._encryption import (
    add_encryption_key,
    generate_encryption_key,
    promote_encryption_key,
)
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.e2e.process import GatewayProcess, as_json, run_command
from tests.plain_http import plain_client
from tests.system.asking import Home
from tests.system.command import Ended, run_to_end
from tests.system.rig import (
    control_source,
    make_home,
    open_front,
    open_plane,
    run_front,
    run_plane,
    store_source,
)

KEYS = "BRIDGEPOOL_ENCRYPTION_KEYS"


async def make_store(folder: Path, upstream: SimulatedUpstream, url: str | None = None) -> Home:
    """Make a store of two providers."""
    home = await make_home(folder, url)
    async with open_plane(home):
        await home.add("ai", upstream, "sk-ai")
        await home.add("other", upstream, "sk-other")
    return home


def replace_key(home: Home) -> None:
    """Lose the encryption key, and have another one in its place."""
    home.encryption_file.write_text(generate_encryption_key().reveal() + "\n")


async def command(home: Home, *arguments: str, **env: str) -> Ended:
    """Run a command of an administrator to its end."""
    return await run_to_end(*arguments, env={**home.environ, **env})


def errors(run: GatewayProcess) -> list[dict[str, object]]:
    lines = (as_json(line) for line in run.stderr.lines)
    return [line for line in lines if line.get("level") == "error"]


@pytest.mark.parametrize("program", ["control-plane", "gateway"])
async def test_a_start_in_which_no_provider_can_be_read_ends_with_status_2(
    tmp_path: Path, north: SimulatedUpstream, program: str
) -> None:
    home = await make_store(tmp_path, north)
    replace_key(home)
    options = {
        "control-plane": home.plane_options(),
        "gateway": ("--listen", "127.0.0.1:0", *home.embedded()),
    }[program]
    log = ("--log-format", "json")
    async with run_command(program, *options, *log, env=home.environ) as run:
        assert await run.wait() == 2
        await run.stdout.wait_end()
        await run.stderr.wait_end()
        lines = errors(run)
        assert [line["event"] for line in lines] == ["provider cannot be read"] * 2
        assert [line["provider"] for line in lines] == ["ai", "other"]
        message = run.stderr.lines[-1]
        assert "none of the 2 providers in the store can be read" in message
        assert str(home.encryption_file) in message  # where
        assert "add that key" in message  # what to do
        assert "listening" not in run.everything


async def test_a_provider_that_cannot_be_read_is_logged_counted_and_listed(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    lost = home.encryption_file.read_text()
    both = add_encryption_key(home.encryption_file)
    promote_encryption_key(home.encryption_file)
    async with open_plane(home):
        await home.add("newer", north, "sk-newer")  # under the new key
    home.encryption_file.write_text(both.keys[-1].reveal())
    assert lost.strip() not in home.encryption_file.read_text()
    async with (
        run_plane(home) as plane,
        run_front(home, *home.embedded()) as (embedded, gateway),
    ):
        assert [line["provider"] for line in errors(plane)] == ["ai", "other"]
        assert [line["provider"] for line in errors(gateway)] == ["ai", "other"]
        async with plain_client() as client:
            answer = await client.get(f"http://127.0.0.1:{home.api_port}/readyz")
        assert (answer.status_code, answer.json()["unreadable"]) == (200, 2)
        ready = await embedded.ready()
        assert (ready.status, ready.document["unreadable"]) == (200, 2)
        await embedded.wait_outcome("north", "newer")
        where = (
            *("--url", f"http://127.0.0.1:{home.api_port}"),
            *("--admin-key-file", str(home.admin_file)),
        )
        shown = await command(home, "gateways", *where)
        assert "providers that cannot be read: 2" in shown.everything
        assert "  ai: it was encrypted with the key" in shown.everything
        listed = json.loads((await command(home, "gateways", "--json", *where)).out)
        assert [row["name"] for row in listed["unreadable"]] == ["ai", "other"]
        shown = await command(home, "providers", "list", *where)
        [row] = [line for line in shown.out.splitlines() if line.startswith("ai ")]
        assert "unreadable" in row
        assert "none" not in row
        # A later reading logs what is new in it, and nothing again.
        await home.add("newest", north, "sk-newest")
        await embedded.wait_outcome("north", "newest")
        await gateway.stop()
        assert [line["provider"] for line in errors(gateway)] == ["ai", "other"]


async def test_nothing_is_written_with_a_wrong_encryption_key(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    right = home.encryption_file.read_text()
    replace_key(home)
    at = ("--encryption-key-file", str(home.encryption_file))
    url = ("--type", "openai", "--base-url", "https://a.example/v1")
    writes = (
        ("providers", "add", "more", *url),
        ("keys", "create", "client", "alice"),
        ("keys", "create", "admin", "ada"),
        ("keys", "create", "gateway", "front-9"),
        ("keys", "revoke", "gateway", "first"),
    )
    for write in writes:
        done = await command(home, *write, *at)
        assert done.status == 2, done.everything
        assert "nothing was changed: the encryption keys" in done.err
        assert str(home.encryption_file) in done.err
    done = await command(home, "audit", *at)
    assert done.status == 0
    assert all(line.endswith("unreadable") for line in done.out.splitlines()[1:])
    home.encryption_file.write_text(right)
    entries = json.loads((await command(home, "audit", "--json", *at)).out)
    assert [entry["action"] for entry in entries][:2] == ["provider.add", "provider.add"]
    done = await command(home, "encryption", "rotate", "--store", home.store_url, *at)
    assert done.status == 0, done.everything


async def test_providers_whose_key_is_lost_can_be_set_again_or_removed(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    replace_key(home)
    at = ("--encryption-key-file", str(home.encryption_file))
    done = await command(home, "providers", "remove", "other", *at)
    assert done.status == 0, done.everything
    again = ("--base-url", north.openai_url, "--keys-from-env", "NEW_KEY", "--type", "openai")
    done = await command(
        home, "providers", "update", "ai", *again, "--allow-private", *at, NEW_KEY="sk-new"
    )
    assert done.status == 0, done.everything
    async with run_plane(home) as plane:
        assert errors(plane) == []


async def test_gateways_answer_misconfigured_for_what_cannot_be_read_and_its_last_good_form_first(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    file = tmp_path / "snapshot"
    from_file = GatewayOptions(
        control=f"ws://127.0.0.1:{home.rpc_port}",
        key_file=home.gateway_file,
        name="front",
        snapshot_file=file,
    )
    open_from_file = partial(open_source, from_file, allow_anonymous=False)
    add_encryption_key(home.encryption_file)
    both = promote_encryption_key(home.encryption_file)
    async with open_front(home, control_source(home)) as (running, _):
        async with open_plane(home):
            await home.add("newer", north, "sk-newer")  # under the new key
            async with open_front(home, open_from_file()) as (front, _):
                for one in (running, front):
                    await one.wait_outcome("north", "newer")
        # The control plane comes back without the key of the first two.
        home.encryption_file.write_text(both.keys[0].reveal())
        async with (
            open_plane(home),
            open_front(home, control_source(home)) as (started, _),
            open_front(home, store_source(home)) as (embedded, _),
        ):
            await home.add("newest", north, "sk-newest")
            for _ in range(2):  # the file keeps the last good form, too
                async with open_front(home, open_from_file()) as (front, _):
                    await front.wait_outcome("north", "newest")
                    assert await front.outcome("ai") == "north"
            for front in (running, started, embedded):
                await front.wait_outcome("north", "newest")
            assert await running.outcome("ai") == "north"
            for front in (started, embedded):
                answer = await front.ask("ai")
                assert (answer.status, answer.code) == (503, "provider_misconfigured")
                assert (await front.ask("nobody")).status == 404
            revision = await home.change("newest", keys=[])
            ended = ("offline", "stopped")
            told = [one for one in await home.wait_applied(revision) if one["state"] not in ended]
            assert len(told) == 2
            for row in told:
                rejected = row["rejected"]
                assert isinstance(rejected, list)
                assert [one["name"] for one in rejected] == ["ai", "other"]
                assert both.names[1] in rejected[0]["reason"]  # the key that is missing
            await home.change("ai", enabled=False)
            for front in (running, started, embedded):
                await front.wait_outcome("provider_disabled")
            await home.change("ai", enabled=True)  # it has been forgotten
            for front in (running, started, embedded):
                await front.wait_outcome("provider_misconfigured")
            assert await running.outcome("other") == "north"
        home.encryption_file.write_text("\n".join(key.reveal() for key in both.keys))
        async with open_plane(home):
            await running.wait_outcome("north")


async def test_a_rotation_is_refused_while_a_running_program_lacks_the_new_key(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    new = tmp_path / "new.key"  # as on the machine where the operator has added the key
    new.write_text(home.encryption_file.read_text())
    add_encryption_key(new)
    both = promote_encryption_key(new)
    options = ("--store", home.store_url, "--encryption-key-file", str(new), "--drop-old")
    rotate = ("encryption", "rotate", *options)

    async def is_refused(program: str) -> bool:
        done = await command(home, *rotate)
        named = f"{program} {socket.gethostname()}-" in done.err
        return done.status == 2 and named and both.names[0] in done.err

    before = new.read_text()
    async with run_front(home, *home.embedded()) as (front, gateway):
        await front.wait_outcome("north")
        async with run_plane(home) as plane:
            assert await is_refused("control plane")
            assert await is_refused("gateway")
            await gateway.stop()
            assert await is_refused("control plane")
            assert not await is_refused("gateway")
            plane.process.terminate()
            assert await plane.wait() == 0
    assert new.read_text() == before
    home.encryption_file.write_text(before)
    async with run_plane(home) as plane, run_front(home, *home.embedded()) as (front, _):
        await front.wait_outcome("north")
        done = await command(home, *rotate)
        assert done.status == 0, done.everything
        assert new.read_text().split() == [both.keys[0].reveal()]
        await home.change("other", enabled=False)
        await front.wait_outcome("provider_disabled", "other")
        assert await front.outcome("ai") == "north"
        assert errors(plane) == []
