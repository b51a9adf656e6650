"""Every route of the API against every kind of key that is none of its own."""

from __future__ import annotations

import hmac

import httpx2
import pytest

from tests.gateway.control.planes import Plane
from tests.gateway.control.stores import ADA
from tests.plain_http import plain_client


async def _routes(plane: Plane) -> list[tuple[str, str]]:
    """Every method of every path that is described, and some that are not."""
    async with plain_client(plane.url) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    found = [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        for method in methods
    ]
    open_to_all = {("GET", "/healthz"), ("GET", "/readyz")}
    assert {route for route in found if not route[1].startswith("/api/v1/")} == open_to_all
    found = [route for route in found if route not in open_to_all]
    assert len(found) >= 25
    paths_asked = {path for _, path in found}
    return [
        *found,
        *(("OPTIONS", path) for path in sorted(paths_asked)),
        *(("HEAD", path) for path in sorted(paths_asked)),
        *(("TRACE", path) for path in sorted(paths_asked)),
    ]


async def _foreign_keys(plane: Plane) -> dict[str, str]:
    """One key of each kind that may not use the API."""
    store = plane.store
    revoked = await store.create_admin_key(ADA, "revoked", "write")
    await store.revoke_key(ADA, "admin", revoked.access_key.id)
    client = (await store.add_client(ADA, "client")).key
    assert client is not None
    gateway = (await store.create_gateway_key(ADA, "gateway")).key
    good = await plane.key("write")
    return {
        "revoked": revoked.key.reveal(),
        "a client's": client.reveal(),
        "a gateway's": gateway.reveal(),
        "a client's, renamed": "bpa" + client.reveal().removeprefix("bp"),
        "a gateway's, renamed": "bpa" + gateway.reveal().removeprefix("bpg"),
        "its id alone": good.rsplit("_", 1)[0],
        "one character off": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "one character more": good + "A",
        "in capitals": good.upper(),
    }


async def test_no_other_key_opens_any_route(plane: Plane) -> None:
    keys = await _foreign_keys(plane)
    routes = await _routes(plane)
    headers = {label: f"Bearer {key}" for label, key in keys.items()}
    headers["as a password"] = f"Basic {await plane.key('write')}"
    async with plain_client(plane.url) as client:
        for method, path in routes:
            for label, value in headers.items():
                answer = await client.request(method, path, headers={"Authorization": value})
                assert answer.status_code == 401, (method, path, label)
            answer = await client.request(method, path)
            assert answer.status_code == 401, (method, path)
    assert len(await plane.store.list_keys("admin")) == 1


async def test_two_keys_in_one_request_are_none(plane: Plane) -> None:
    good = await plane.key("write")
    both = [("Authorization", f"Bearer {good}"), ("Authorization", "Bearer other")]
    async with plain_client(plane.url) as client:
        for headers in (both, both[::-1], [both[0], both[0]]):
            answer = await client.get("/api/v1/providers", headers=headers)
            assert answer.status_code == 401


async def test_a_key_that_may_read_reads_everything_and_writes_nothing(plane: Plane) -> None:
    before = await plane.good("GET", "/api/v1/audit?limit=1000", role="read")
    for method, path in await _routes(plane):
        answer = await plane.ask(method, path, role="read")
        if method in ("GET", "HEAD", "OPTIONS"):
            assert answer.status_code not in (401, 403), (method, path)
        else:
            assert answer.status_code == 403, (method, path)
    assert await plane.good("GET", "/api/v1/audit?limit=1000", role="read") == before


async def test_no_way_of_writing_a_path_goes_round_the_guard(plane: Plane) -> None:
    async with plain_client(plane.url) as client:
        for path in (
            *("//api/v1/providers", "/./api/v1/providers", "/x/../api/v1/providers"),
            *("/%61pi/v1/providers", "/api%2Fv1%2Fproviders", "/API/v1/providers"),
            *("/api/v1/providers/", "/api/v1//providers", "/%2E/api/v1/providers"),
            *("/healthz/../api/v1/providers", "/api/v1/providers%00", "/;/api/v1/providers"),
            *("/api%5Cv1%5Cproviders", "/api/v1/providers?x=/healthz"),
        ):
            url = httpx2.URL(plane.url).copy_with(raw_path=path.encode())
            answer = await client.get(url)
            assert answer.status_code in (401, 404), path
            assert "providers" not in answer.text


async def test_keys_are_compared_in_constant_time(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    good = await plane.key("read")
    monkeypatch.setattr("bridgepool.gateway.providers._access_keys.hmac.compare_digest", watched)
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    assert (await plane.ask("GET", "/api/v1/providers", key=wrong)).status_code == 401
    assert (await plane.ask("GET", "/api/v1/providers", key=good)).status_code == 200
    assert len(compared) == 2
    assert all(len(one) == len(other) == 32 for one, other in compared)  # hashes, not keys
