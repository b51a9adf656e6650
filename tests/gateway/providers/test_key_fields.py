"""The fields about a provider's keys, in files."""

from __future__ import annotations

import pytest

from bridgepool.gateway.providers import ProviderFileError, parse_provider_file

PROVIDER = """
[[providers]]
name = "ai"
type = "openai"
base_url = "https://api.example/v1"
"""


def test_the_fields_about_keys_are_read() -> None:
    text = PROVIDER + (
        'keys = ["sk-1", "sk-2"]\nkey_policy = "round_robin"\nmax_replay_bytes = 0\n'
        'client_keys = "prefer"\n'
    )
    [provider] = parse_provider_file(text).providers
    assert (provider.key_policy, provider.max_replay_bytes) == ("round_robin", 0)
    assert provider.client_keys == "prefer"
    [plain] = parse_provider_file(PROVIDER + 'keys = ["sk-1"]\n').providers
    assert (plain.key_policy, plain.max_replay_bytes, plain.client_keys) == (
        "first",
        1 << 20,
        False,
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('key_policy = "random"', "key_policy: is not one of first, round_robin"),
        ("max_replay_bytes = -1", "max_replay_bytes: is not from 0 to 1073741824"),
        ('max_replay_bytes = "1 MiB"', "max_replay_bytes: is not a whole number"),
        ('client_keys = "maybe"', "client_keys: is not true, false, prefer"),
        ("client_keys = true", "client_keys: is true beside keys"),
    ],
)
def test_what_is_wrong_with_them_is_said(line: str, problem: str) -> None:
    with pytest.raises(ProviderFileError, match=problem):
        parse_provider_file(PROVIDER + f'keys = ["sk-1"]\n{line}\n')
