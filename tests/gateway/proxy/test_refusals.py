import json

import pytest

from bridgepool.gateway.providers import ANTHROPIC, OPENAI, PROVIDER_TYPES, ProviderType
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._refusals import Refusal, find_error_form, render, render_event


def test_openai_clients_get_an_error_object_with_message_type_param_and_code() -> None:
    _, body = render(refusals.provider_disabled("openai"), OPENAI.errors, "r-1")
    assert json.loads(body) == {
        "error": {
            "message": "Provider 'openai' is disabled.",
            "type": "server_error",
            "param": None,
            "code": "provider_disabled",
        },
        "request_id": "r-1",
    }


def test_anthropic_clients_get_a_typed_error_with_the_request_id_of_the_header() -> None:
    headers, body = render(refusals.WRONG_CLIENT_KEY, ANTHROPIC.errors, "r-1")
    document = json.loads(body)
    assert document["type"] == "error"
    assert document["error"]["type"] == "authentication_error"
    assert document["error"]["code"] == "invalid_api_key"
    assert document["request_id"] == "r-1"
    assert dict(headers)[b"request-id"] == dict(headers)[b"x-request-id"] == b"r-1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
    ],
)
def test_anthropic_error_types_follow_the_status(status: int, kind: str) -> None:
    _, body = render(Refusal(status, "x", "y"), ANTHROPIC.errors, "r-1")
    assert json.loads(body)["error"]["type"] == kind


@pytest.mark.parametrize("kind", PROVIDER_TYPES)
def test_useless_retries_are_forbidden_and_useful_ones_get_a_date(kind: ProviderType) -> None:
    def headers(refusal: Refusal) -> dict[bytes, bytes]:
        return dict(render(refusal, kind.errors, "r-1")[0])

    assert headers(refusals.provider_disabled("a"))[b"x-should-retry"] == b"false"
    assert headers(refusals.provider_misconfigured("a"))[b"x-should-retry"] == b"false"
    assert headers(refusals.UNKNOWN_PROVIDER)[b"x-should-retry"] == b"false"
    assert headers(refusals.NOT_READY)[b"retry-after"] == b"1"
    assert headers(refusals.UPSTREAM_BUSY)[b"retry-after"] == b"1"
    for refusal in (refusals.UPSTREAM_UNREACHABLE, refusals.UPSTREAM_TIMEOUT):
        assert not {b"x-should-retry", b"retry-after"} & set(headers(refusal))


def test_a_wrong_client_key_is_challenged_as_rfc_9110_asks() -> None:
    headers, _ = render(refusals.WRONG_CLIENT_KEY, OPENAI.errors, "r-1")
    assert dict(headers)[b"www-authenticate"] == b"Bearer"


def test_the_event_that_ends_a_cut_stream_has_the_form_of_each_sdk() -> None:
    openai = render_event(refusals.UPSTREAM_CUT, OPENAI.errors, "r-1")
    assert openai.startswith(b"data: {")
    assert openai.endswith(b"}\n\n")
    anthropic = render_event(refusals.UPSTREAM_CUT, ANTHROPIC.errors, "r-1")
    assert anthropic.startswith(b'event: error\ndata: {"type":"error"')


def test_the_form_of_errors_is_found_by_header_or_path() -> None:
    version = ((b"anthropic-version", b"2023-06-01"),)
    assert find_error_form(PROVIDER_TYPES, b"/x", version) is ANTHROPIC.errors
    assert find_error_form(PROVIDER_TYPES, b"/nowhere/v1/messages", ()) is ANTHROPIC.errors
    assert find_error_form(PROVIDER_TYPES, b"/nowhere/v1/chat/completions", ()) is OPENAI.errors
