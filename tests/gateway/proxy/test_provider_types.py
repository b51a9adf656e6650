"""Provider types of an embedding program: routes, key, errors and shown paths are its own."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest
import trio

from bridgepool.gateway.providers import (
    ANTHROPIC,
    OPENAI,
    PROVIDER_TYPES,
    ErrorDetails,
    ErrorForm,
    Headers,
    Provider,
    ProviderType,
    Route,
    methods,
)
from bridgepool.gateway.providers._provider_type import find_repeated_path
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream


def _document(error: ErrorDetails) -> Mapping[str, object]:
    return {"fault": error.message, "error": {"code": error.code}}


def _recognises(path: bytes, headers: Headers) -> bool:
    return any(name == b"x-own-client" for name, _value in headers)


OWN = ProviderType(
    name="own",
    prefix=b"/v9",
    key_header=b"x-own-key",
    key_prefix=b"Key ",
    routes=(Route(b"/models", methods("GET")),),
    errors=ErrorForm(_document, request_id_header=b"x-own-id"),
    recognises=_recognises,
)
TYPES = (*PROVIDER_TYPES, OWN)


def own(provider: Provider) -> Provider:
    return attrs.evolve(provider, type="own")


async def test_a_type_of_the_program_serves_its_routes_with_its_key(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    async with open_rig(own(openai(north)), nursery=nursery, types=TYPES) as rig:
        answer = await rig.ask("/ai/v9/models", headers=((b"x-own-key", b"of the client"),))
        assert answer.status == 200
        [record] = await rig.wait_records(1)
    [seen] = north.received
    assert seen.header(b"x-own-key") == b"Key sk-central"
    assert [name for name, _value in seen.headers].count(b"x-own-key") == 1
    assert record.path == "/ai/v9/models"


async def test_errors_have_the_form_of_the_type(nursery: trio.Nursery) -> None:
    off = own(openai("http://127.0.0.1:9", "off", enabled=False))
    async with open_rig(off, nursery=nursery, types=TYPES) as rig:
        about_the_provider = await rig.ask("/off/v9/models")
        assert about_the_provider.json["fault"] == "Provider 'off' is disabled."
        assert b"x-own-id" in about_the_provider.headers
        about_none = await rig.ask("/nobody/v9/models", headers=((b"x-own-client", b"1"),))
        assert about_none.json["fault"]
        unrecognised = await rig.ask("/nobody/v9/models")
        assert "fault" not in unrecognised.json


async def test_a_provider_of_an_unknown_type_fails_alone(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    unknown = own(openai(north, "unknown"))
    async with open_rig(openai(north), unknown, nursery=nursery) as rig:
        assert (await rig.ask("/unknown/v9/models")).code == "provider_misconfigured"
        assert (await rig.ask("/ai/v1/models")).status == 200


@pytest.mark.parametrize(
    ("kind", "path", "repeated"),
    [
        (OPENAI, "", None),
        (OPENAI, "/openai/v1", None),
        (OPENAI, "/v1/chat/completions", "/chat/completions"),
        (ANTHROPIC, "/anthropic", None),
        (ANTHROPIC, "/v1", "/v1"),
        (ANTHROPIC, "/v1/messages", "/v1/messages"),
        (OWN, "/v9", None),
    ],
)
def test_the_end_of_a_base_url_that_requests_would_repeat_is_found(
    kind: ProviderType, path: str, repeated: str | None
) -> None:
    assert find_repeated_path(path, kind) == repeated


async def test_a_base_url_that_ends_with_a_route_is_logged_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request got the 404 of the provider, and the gateway showed it as usable."""
    nowhere = "http://127.0.0.1:9"
    wrong, right = anthropic(f"{nowhere}/v1"), openai(f"{nowhere}/v1")
    async with open_rig(wrong, right, nursery=nursery) as rig:
        await rig.replace(wrong, right, openai(nowhere, "new"))
    lines = [one for one in caplog.records if one.message.startswith("base URL ends")]
    assert [(vars(one)["provider"], vars(one)["path"]) for one in lines] == [("claude", "/v1")]
