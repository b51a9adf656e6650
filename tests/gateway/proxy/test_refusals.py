import json
from collections.abc import Callable

import pytest

from bridgepool.gateway.providers import ANTHROPIC, OPENAI, PROVIDER_TYPES, ProviderType
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._client_statuses import with_status
from bridgepool.gateway.proxy._refusals import (
    Refusal,
    Retry,
    find_error_form,
    render,
    render_event,
)
from bridgepool.http import BodyTooLarge, HeadTooLarge, RemoteProtocolError, RequestTimeout


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
    assert headers(refusals.unknown_provider(()))[b"x-should-retry"] == b"false"
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
    assert find_error_form(PROVIDER_TYPES, b"/", ()) is PROVIDER_TYPES[0].errors


CODEX = "codex_cli_rs/0.79.0 (Debian 12; x86_64) xterm"
VERCEL = "ai/5.0.1 ai-sdk/provider-utils/3.0.5 runtime/node.js/20"
OPENCODE = "opencode/1.1.2/cli ai-sdk/provider-utils/3.0.5"
QWEN = "QwenCode/0.24.4 (linux; x64)"


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        *((agent, 400) for agent in (CODEX, OPENCODE, VERCEL, QWEN)),
        *((agent, 503) for agent in ("OpenAI/Python 3.5", "my-codec/1")),
    ],
)
def test_clients_that_ignore_x_should_retry_get_a_status_that_stops_them(
    agent: str, status: int
) -> None:
    headers = ((b"user-agent", agent.encode()),)
    for refusal in (refusals.provider_disabled("a"), refusals.provider_misconfigured("a")):
        assert with_status(refusal, headers, None).status == status
        assert with_status(refusal, headers, 422).status == 422
    # Codex asks again after all of them, up to 13 times with a wrong key.
    at_once = 400 if agent == CODEX else None
    assert with_status(refusals.unknown_provider(()), headers, 422).status == (at_once or 404)
    assert with_status(refusals.WRONG_CLIENT_KEY, headers, 422).status == (at_once or 401)
    assert with_status(refusals.model_not_allowed("m"), headers, None).status == (at_once or 403)
    # It takes this one for "use HTTP at once".
    assert with_status(refusals.WEBSOCKET_NOT_SUPPORTED, headers, None).status == 426
    assert with_status(refusals.NOT_READY, headers, 422).status == 503, "it is worth a retry"


def test_claude_code_gets_400_where_it_would_blame_the_model_or_ask_for_a_login() -> None:
    headers = ((b"user-agent", b"claude-cli/2.1.332 (external, cli)"),)
    for refusal in (refusals.unknown_provider(()), refusals.model_not_allowed("m")):
        assert with_status(refusal, headers, 422).status == 400
    for refusal in (refusals.WRONG_CLIENT_KEY, refusals.provider_disabled("a")):
        assert with_status(refusal, headers, None) == refusal


def test_an_unknown_provider_is_told_from_those_that_there_are() -> None:
    assert "The providers are: a, b." in refusals.unknown_provider(("a", "b")).message
    assert "none" in refusals.unknown_provider(()).message
    assert len(refusals.unknown_provider(["name"] * 500).message) < 300
    assert "…" in refusals.unknown_provider(["name"] * 21).message
    assert "…" not in refusals.unknown_provider(["name"] * 20).message


def test_a_long_name_of_a_model_is_not_repeated_whole() -> None:
    assert len(refusals.model_not_allowed("m" * 10_000).message) < 200


@pytest.mark.parametrize(
    "refuse",
    [
        refusals.circuit_open,
        refusals.authorization_unavailable,
        refusals.provider_keys_exhausted,
    ],
)
def test_no_client_is_told_to_come_back_too_early(refuse: Callable[[float], Refusal]) -> None:
    assert [refuse(left).retry_after for left in (0.0, 0.2, 1.0, 1.2)] == [1, 1, 1, 2]


@pytest.mark.parametrize("kind", PROVIDER_TYPES)
def test_each_field_of_a_refusal_comes_once_and_its_own_come_too(kind: ProviderType) -> None:
    for refusal in (refusals.WRONG_CLIENT_KEY, refusals.NOT_READY, refusals.WEBSOCKET_VERSION):
        names = [name for name, _ in render(refusal, kind.errors, "r-1")[0]]
        assert len(set(names)) == len(names)
        assert {name for name, _ in refusal.headers} <= set(names)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (RequestTimeout("late"), "request_timeout", Retry.CLIENT_DECIDES),
        (HeadTooLarge("long"), "headers_too_large", Retry.USELESS),
        (RemoteProtocolError("odd"), "bad_request", Retry.USELESS),
    ],
)
def test_input_that_cannot_be_read_is_not_to_be_sent_again_unless_it_was_late(
    error: RemoteProtocolError, code: str, retry: Retry
) -> None:
    found = refusals.invalid_request(error)
    assert (found.status, found.code, found.retry) == (error.status_hint, code, retry)
    assert refusals.bad_body(error).status == error.status_hint
    assert refusals.bad_body(BodyTooLarge("long")) == refusals.BODY_TOO_LARGE
