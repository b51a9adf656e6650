"""The API on a real server: what each route does, for both engines."""

from __future__ import annotations

from pathlib import Path

import trio

from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.providers import hash_key, new_client_key
from bridgepool.http.asgi import asgi_app
from tests.gateway.control.planes import DRAFT, SECRET, Plane, open_plane, receipt, session
from tests.http.test_asgi import hypercorn_serving
from tests.plain_http import plain_client


async def test_a_provider_from_its_creation_to_its_removal(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        added = await plane.good("POST", "/api/v1/providers", DRAFT)
        provider = added["provider"]
        assert added["changed"]
        assert added["revision"] == provider["revision"] == 1
        [key] = provider["keys"]
        assert (set(key), key["hint"]) == ({"id", "hint", "fingerprint"}, "…6789")
        assert provider["headers"] == {"x-team": "***"}
        shown = await plane.good("GET", "/api/v1/providers/openai")
        assert shown["provider"] == provider
        [usage] = shown["key_usage"]
        assert (usage["id"], usage["fingerprint"]) == (key["id"], key["fingerprint"])
        assert shown == await plane.good("GET", f"/api/v1/providers/{provider['id']}")
        listed = await plane.good("GET", "/api/v1/providers", role="read")
        assert listed == {"revision": 1, "providers": [provider]}

        path = "/api/v1/providers/openai"
        kept = provider["keys"][0]["id"]
        changes: dict[str, object] = {"keys": [{"value": "sk-new"}, {"id": kept}], "key_env": None}
        changed = await plane.good("PATCH", path, changes)
        assert changed["revision"] == 2
        assert changed["provider"]["keys"][1]["id"] == kept
        same = await plane.good("PATCH", path, {"keys": [{"value": "sk-new"}, {"id": kept}]})
        assert (same["changed"], same["revision"]) == (False, 2)

        emptying = (("POST", f"{path}/disable", None), ("DELETE", path, None))
        for method, target, body in (*emptying, ("PATCH", path, {"enabled": False})):
            assert await plane.refused(method, target, body) == (422, "invalid")
        off = await plane.good("POST", f"{path}/disable?if_revision=2&allow_empty=true")
        assert off["provider"]["enabled"] is False
        assert await plane.refused("POST", f"{path}/enable?if_revision=2") == (409, "conflict")
        assert (await plane.good("POST", f"{path}/enable"))["revision"] == 4
        assert await plane.refused("POST", "/api/v1/providers", DRAFT) == (409, "name_taken")

        removed = await plane.good("DELETE", f"{path}?if_revision=4&allow_empty=true")
        assert removed["provider"]["name"] == "openai"
        assert await plane.refused("GET", path) == (404, "not_found")
        assert await plane.refused("DELETE", path) == (404, "not_found")


async def test_all_providers_at_once(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        await plane.good("POST", "/api/v1/providers", DRAFT)
        exported = await plane.good("GET", "/api/v1/export")
        assert SECRET not in str(exported)
        assert exported["providers"][0]["headers"] == {"x-team": None}
        again = await plane.good("POST", "/api/v1/apply", {"providers": exported["providers"]})
        assert not again["changed"]
        other = {"name": "other", "type": "openai", "base_url": "https://o.example/v1"}
        wanted = {"providers": [{**other, "client_keys": True}], "prune": True}
        tried = await plane.good("POST", "/api/v1/apply", {**wanted, "dry_run": True})
        assert (tried["changed"], tried["dry_run"], tried["revision"]) == (True, True, 1)
        done = await plane.good("POST", "/api/v1/apply", wanted)
        assert done["revision"] == 2
        assert done["providers"] == [
            {"name": "other", "action": "created", "fields": []},
            {"name": "openai", "action": "removed", "fields": []},
        ]


async def test_clients_and_their_keys(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        alice = await plane.good("POST", "/api/v1/clients", {"id": "alice"})
        key = alice["key"]
        assert key.startswith("bp_")
        given = {"id": "bob", "key_hashes": [hash_key(new_client_key())]}
        assert (await plane.good("POST", "/api/v1/clients", given))["key"] is None
        second = await plane.good("POST", "/api/v1/clients/alice/keys")
        listed = await plane.good("GET", "/api/v1/clients")
        assert [len(client["keys"]) for client in listed["clients"]] == [2, 1]
        path = f"/api/v1/clients/alice/keys/{second['access_key']['id']}"
        assert (await plane.good("DELETE", path))["access_key"]["revoked"]
        assert not (await plane.good("DELETE", path))["changed"]
        shown = await plane.good("GET", "/api/v1/clients/alice")
        assert [one["id"] for one in shown["client"]["keys"]] == [alice["client"]["keys"][0]["id"]]
        await plane.good("DELETE", "/api/v1/clients/alice")
        assert await plane.refused("GET", "/api/v1/clients/alice") == (404, "not_found")
        assert key not in str(await plane.good("GET", "/api/v1/audit"))


async def test_keys_of_gateways_and_admins(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        front = await plane.good("POST", "/api/v1/gateway-keys", {"name": "front"})
        assert front["key"].startswith("bpg_")
        reader = await plane.good("POST", "/api/v1/admin-keys", {"name": "ci", "role": "read"})
        assert reader["access_key"]["role"] == "read"
        assert reader["revision"] == front["revision"]
        await plane.good("GET", "/api/v1/gateway-keys", key=reader["key"])
        gone = await plane.good("DELETE", "/api/v1/gateway-keys/front")
        assert gone["revision"] == front["revision"] + 1
        assert await plane.good("GET", "/api/v1/gateway-keys") == {"keys": []}
        listed = await plane.good("GET", "/api/v1/gateway-keys?revoked=true")
        assert listed == {"keys": [gone["access_key"]]}
        await plane.good("DELETE", f"/api/v1/admin-keys/{reader['access_key']['id']}")
        refused = await plane.refused("GET", "/api/v1/admin-keys", key=reader["key"])
        assert refused == (401, "unauthorized")


async def test_gateways_and_what_they_made_of_a_revision(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        await plane.good("POST", "/api/v1/providers", DRAFT)
        plane.hub.session_opened(session("front"))
        path = "/api/v1/revisions/1/applied"
        first = await plane.good("GET", path)
        assert (first["complete"], first["gateways"][0]["state"]) == (False, "pending")

        async def answer() -> None:
            await trio.sleep(0.05)
            plane.hub.acknowledged("session-front-1", receipt(1, openai="base_url: no"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(60):
                told = await plane.good("GET", f"{path}?wait=30")
        assert told == {
            "revision": 1,
            "complete": True,
            "applied": False,
            "connected": 1,
            "missing": [],
            "gateways": [
                {
                    "gateway": "front",
                    "instance": "instance-front",
                    "state": "rejected",
                    "revision": 1,
                    "rejected": [{"name": "openai", "reason": "base_url: no"}],
                }
            ],
        }
        listed = await plane.good("GET", "/api/v1/gateways")
        assert listed["gateways"][0]["connected"]
        assert listed["gateways"][0]["revision"] == listed["revision"] == 1
        assert await plane.refused("GET", "/api/v1/revisions/2/applied") == (404, "not_found")
        now = await plane.good("GET", "/api/v1/revision")
        epoch, mark = plane.hub.revisions.epoch, plane.hub.revisions.mark
        assert now == {
            "revision": 1, "providers": 1, "clients": 0, "epoch": epoch, "mark": mark
        }  # fmt: skip
        assert plane.hub.revisions == Revisions(1, 1, 0, epoch, mark)


async def test_the_audit_comes_in_pages(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        await plane.good("POST", "/api/v1/providers", DRAFT)
        await plane.good("POST", "/api/v1/providers/openai/disable?allow_empty=true")
        everything = (await plane.good("GET", "/api/v1/audit"))["entries"]
        assert everything[0]["action"] == "provider.update"
        assert everything[0]["actor"] == {"kind": "admin", "name": "admin-write"}
        assert everything[0]["fields"] == ["enabled"]
        pages, before = [], ""
        while True:
            page = await plane.good("GET", f"/api/v1/audit?limit=2{before}")
            pages += page["entries"]
            if page["next"] is None:
                break
            before = f"&before={page['next']}"
        assert pages == everything
        of_one = await plane.good("GET", "/api/v1/audit?name=openai")
        assert len(of_one["entries"]) == 2


async def test_health_is_told_without_a_key(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        async with plain_client(plane.url) as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            ready = {"status": "ready", "revision": 0, "unreadable": 0}
            ready |= {"store": {"read": "ok", "write": "ok"}, "log_lines_dropped": 0}
            assert (await client.get("/readyz")).json() == ready
            described = (await client.get("/openapi.json")).json()
            plane.hub.end_waits()
            ending = await client.get("/readyz")
        assert ending.status_code == 503
        assert ending.json()["error"]["code"] == "draining"
        assert ending.json()["store"] == {"read": "ok", "write": "ok"}
        for path, methods in described["paths"].items():
            for method, route in methods.items():
                if path.startswith("/api/"):
                    assert route["security"] == [{"adminKey": []}], (method, path)
                    assert {"401", "414", "422", "503"} <= set(route["responses"])


async def test_running_requests_end_before_the_server_does(tmp_path: Path) -> None:
    async def ask(plane: Plane) -> None:
        told = await plane.good("GET", "/api/v1/revisions/0/applied?wait=60")
        assert not told["complete"]
        plane.graceful.begin(10)

    with trio.fail_after(60):
        async with open_plane(str(tmp_path / "store.db")) as plane:
            plane.hub.session_opened(session("front"))
            await plane.key()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, plane)
                await trio.sleep(0.1)
                plane.hub.end_waits()


async def test_the_api_can_be_served_by_an_asgi_server(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        added = await plane.good("POST", "/api/v1/providers", DRAFT)
        key = {"Authorization": f"Bearer {await plane.key()}"}
        async with (
            hypercorn_serving(asgi_app(plane.api.handle)) as port,
            plain_client(f"http://127.0.0.1:{port}", headers=key) as client,
        ):
            shown = await client.get("/api/v1/providers/openai")
            assert shown.json()["provider"] == added["provider"]
            assert (await client.post("/api/v1/providers", json=DRAFT)).status_code == 409
            refused = await client.get("/api/v1/providers", headers={"Authorization": ""})
            assert refused.status_code == 401
