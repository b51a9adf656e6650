"""What an operation asks by HTTP is what is read from the request, and mistakes are all told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool import Secret
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    ClientView,
    KeyRef,
    KeyValue,
    ProviderDraft,
    ProviderPatch,
)
from bridgepool.gateway.control.api._app import _match
from bridgepool.gateway.control.api._errors import json_response
from bridgepool.gateway.control.api._guard import split_path
from bridgepool.gateway.control.api._openapi import describe
from bridgepool.gateway.control.operations import OPERATIONS, Context, Operation
from bridgepool.gateway.control.operations import _keys as keys
from bridgepool.gateway.control.operations._audit import list_audit
from bridgepool.gateway.control.operations._clients import add_client
from bridgepool.gateway.control.operations._gateways import wait_applied
from bridgepool.gateway.control.operations._operation import REQUIRED, operation
from bridgepool.gateway.control.operations._providers import (
    add_provider,
    apply_providers,
    update_provider,
)
from bridgepool.gateway.control.operations._requests import read_request, write_request
from bridgepool.gateway.control.operations._usage import list_usage
from bridgepool.gateway.providers import hash_key, new_client_key
from tests.examples.support import ROOT

HIDDEN: Final = "sk-must-not-come-back-0123456789"
DRAFT: Final = ProviderDraft(
    name="openai",
    type="openai",
    base_url="https://api.openai.example/v1",
    keys=(KeyValue(Secret("sk-one")), KeyRef("key_2")),
    headers={"x-new": Secret("a value"), "x-kept": None},
)
VALUES: Final[dict[str, object]] = {
    "draft": DRAFT,
    "providers": (DRAFT, DRAFT),
    "patch": ProviderPatch(key_env=None, enabled=False, keys=(KeyRef("key_1"),)),
    "key_hashes": (hash_key(new_client_key()),),
    "rules": {"models": ("a", "b"), "expires": None, "max_concurrent": 3},
    "key_rules": {"routes": ("/chat/*",)},
    "role": "write",
    "revision": 17,
    "if_revision": 17,
    "before": 41,
    "limit": 7,
    "since": "2026-01-01",
    "until": "2026-02-01",
    "minimum": 2,
    "wait": 2.5,
    "revoked": True,
    "prune": True,
    "dry_run": True,
    "allow_empty": True,
}


def there_and_back(asked: Operation[..., Any], arguments: dict[str, object]) -> dict[str, object]:
    """Read what was written, as the two ends of a connection do."""
    request = write_request(asked, arguments)
    body = REQUIRED if request.body is None else json.loads(json.dumps(request.body))
    places = _match(asked.path, split_path(request.path))
    assert places is not None
    return read_request(asked, places, request.query, body)


@pytest.mark.parametrize("asked", OPERATIONS, ids=lambda asked: asked.name)
def test_what_is_asked_is_what_is_read(asked: Operation[..., Any]) -> None:
    names = [parameter.name for parameter in asked.parameters]
    everything = {name: VALUES.get(name, f"a-{name}") for name in names}
    assert there_and_back(asked, everything) == everything
    required = {
        parameter.name: everything[parameter.name]
        for parameter in asked.parameters
        if parameter.default is REQUIRED
    }
    assert there_and_back(asked, required) == required


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=256).filter(
        lambda text: text.isprintable() and "/" not in text
    )
)
def test_any_printable_name_comes_through_a_path(name: str) -> None:
    assert there_and_back(keys.revoke_gateway_key, {"key": name}) == {"key": name}


def problems(asked: Operation[..., Any], query: dict[str, str], body: object) -> tuple[str, ...]:
    with pytest.raises(InvalidChangeError) as caught:
        read_request(asked, {"name": "a", "revision": "1"}, query, body)
    assert HIDDEN not in str(caught.value)
    return caught.value.problems


def test_every_mistake_is_told_at_once_and_no_value() -> None:
    wrong_key = {"name": 5, "role": HIDDEN, HIDDEN: 1}
    assert problems(keys.create_admin_key, {HIDDEN: "1"}, wrong_key) == (
        "query: an unknown field",
        "…: an unknown field",
        "name: is not a string",
        "role: is not one of read, write",
    )
    assert problems(list_audit, {"limit": "0", "before": HIDDEN, "name": HIDDEN + "/"}, None) == (
        "limit: is less than 1",
        "before: is not an integer",
        "name: is not made of letters, digits and . _ @ -",
    )
    assert problems(list_audit, {"limit": "1001", "name": ""}, None) == (
        "limit: is more than 1000",
        "name: is empty",
    )
    assert problems(list_usage, {"session": "s" * 257}, None) == (
        "session: has more than 256 characters",
    )
    assert problems(add_client, {}, {"key_hashes": [HIDDEN, 5]}) == (
        "id: is missing",
        "key_hashes.1: is not a string",
    )
    rules = {HIDDEN: 1, "models": HIDDEN, "max_concurrent": None}
    assert problems(add_client, {}, {"id": "a", "rules": rules}) == (
        "rules.…: is not a known field",
        "rules.models: is not a list of strings or null",
    )
    rules = {"models": HIDDEN, "max_concurrent": 0}
    assert problems(add_client, {}, {"id": "a", "rules": rules}) == (
        "rules.models: is not a list of strings or null",
        "rules.max_concurrent: is not from 1 to 1000000000000",
    )
    draft = {"enabled": 5, "retries": 99, "name": "A/", "base_url": "http://127.0.0.1"}
    assert problems(update_provider, {}, draft) == (
        "enabled: is not true or false",
        "name: is not [a-z0-9] words joined by '-' (at most 64 characters)",
        "retries: is not from 0 to 10",
    )
    draft = {HIDDEN: 1, "name": 5, "type": HIDDEN, "keys": [HIDDEN], "headers": {HIDDEN: 5}}
    found = problems(add_provider, {}, draft)
    for start in (
        "…: is not a known field",
        "name: ",
        "keys: ",
        "headers: ",
        "base_url: is missing",
    ):
        assert any(one.startswith(start) for one in found), start
    assert problems(update_provider, {}, {"base_ulr": HIDDEN}) == (
        "…: is not a known field (did you mean base_url?)",
    )
    found = problems(apply_providers, {}, {"providers": [{}, 5]})
    assert found[:1] == ("providers.0.name: is missing",)
    assert found[-1:] == ("providers.1.body: is not an object",)


@pytest.mark.parametrize("body", [REQUIRED, None, [], "text", 5])
def test_a_body_is_an_object(body: object) -> None:
    expected = "body: is missing" if body is REQUIRED else "body: is not an object"
    for asked in (add_client, add_provider, update_provider):
        assert problems(asked, {}, body) == (expected,)


@pytest.mark.parametrize("text", ["a\0", "a\nb", "\ud800", "x" * 8193])
def test_a_text_that_no_field_holds_is_refused_wherever_it_stands(text: str) -> None:
    for asked, body in (
        (add_client, {"id": text}),
        (add_client, {"id": "a", "key_hashes": [text]}),
        (add_provider, {"keys": [{"value": text}]}),
        (add_provider, {"headers": {text: "a"}}),
    ):
        assert len(problems(asked, {}, body)) == 1


def test_a_body_may_be_nested_as_deeply_as_json_is_read() -> None:
    body: object = []
    for _ in range(5000):
        body = [body]
    assert problems(add_client, {}, {"id": body}) == ("id: is not a string",)


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "61", "", "null", "true"])
def test_a_wait_is_a_number_of_seconds(wait: str) -> None:
    [problem] = problems(wait_applied, {"wait": wait}, None)
    assert problem.startswith("wait: ")


def test_only_an_operation_that_makes_a_key_shows_a_secret() -> None:
    answer = {"key": Secret(HIDDEN)}
    assert json.loads(json_response(200, answer).content) == {"key": "***"}
    assert json.loads(json_response(200, answer, shows_key=True).content) == {"key": HIDDEN}
    shown = {asked.name for asked in OPERATIONS if asked.shows_key}
    assert shown == {"add_client", "add_client_key", "create_gateway_key", "create_admin_key"}


def test_every_operation_is_described() -> None:
    described = json.loads(describe())
    for asked in OPERATIONS:
        route = described["paths"][f"/api/v1{asked.path}"][asked.method.lower()]
        assert route["operationId"] == asked.name
        assert route["summary"].endswith(".")
        assert str(asked.status) in route["responses"]
        placed = {(one["name"], one["in"]) for one in route["parameters"]}
        body = route.get("requestBody", {"content": {"application/json": {"schema": None}}})
        schema = body["content"]["application/json"]["schema"]
        if schema is not None:
            assert schema["additionalProperties"] is False
        for parameter in asked.parameters:
            where = parameter.place.value
            assert (parameter.name, where) in placed or schema is not None
    references = set(_references(described))
    assert references
    assert references <= {
        f"#/components/schemas/{name}" for name in described["components"]["schemas"]
    }


def _references(document: object) -> list[str]:
    if isinstance(document, dict):
        own = [document["$ref"]] if isinstance(document.get("$ref"), str) else []
        return own + [ref for value in document.values() for ref in _references(value)]
    if isinstance(document, list):
        return [ref for value in document for ref in _references(value)]
    return []


def test_a_function_and_its_signature_are_all_that_an_operation_needs() -> None:
    @operation("POST", "/clients/{client_id}/rename")
    async def rename_client(context: Context, client_id: str, to: str) -> ClientView:
        """Give a client another id."""
        raise NotImplementedError

    assert [(one.name, one.place.value) for one in rename_client.parameters] == [
        ("client_id", "path"),
        ("to", "field"),
    ]
    assert rename_client.answer is ClientView
    assert rename_client.arguments("a", to="b") == {"client_id": "a", "to": "b"}


def test_the_client_of_the_api_loads_no_store_and_no_server() -> None:
    program = (
        "import sys\n"
        "import bridgepool.gateway.control.operations._http_admin\n"
        "package = 'bridgepool.gateway.control.'\n"
        "parts = {name.removeprefix(package).split('.')[0] for name in sys.modules}\n"
        "heavy = {'store', 'database', 'api'} & parts\n"
        "heavy |= {'cryptography', 'psycopg'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_reference_has_every_operation_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "control-api.md").read_text(encoding="utf-8")
    named = re.findall(r"`(GET|POST|PATCH|DELETE) /api/v1(/[^`?]*)", page)
    found = {(method, re.sub(r"{\w+}", "{}", path)) for method, path in named}
    assert found == {(one.method, re.sub(r"{\w+}", "{}", one.path)) for one in OPERATIONS}
