"""What clients may, as a provider file says it and as a store keeps it."""

import msgspec
import pytest

from bridgepool.gateway.providers import (
    Caller,
    ClientRules,
    ProviderFileError,
    hash_key,
    new_client_key,
)
from bridgepool.gateway.providers import parse_provider_file as parse
from bridgepool.gateway.providers._access_keys import parse_hash
from bridgepool.gateway.providers._client_rules import (
    NO_RULES,
    check_rules,
    rules_from_text,
    rules_to_text,
)

KEY, OTHER = new_client_key(), new_client_key()
HASH, OTHER_HASH = hash_key(KEY), hash_key(OTHER)
OTHER_ID = parse_hash(OTHER_HASH).key_id
FULL = ClientRules(
    providers=("openai", "own-*"),
    models=("gpt-5*",),
    routes=("/chat/*",),
    expires="2030-01-31T00:00:00Z",
    max_concurrent=3,
    requests_per_minute=60,
    tokens_per_minute=10_000,
    tokens_per_day=1_000_000,
    tokens_per_month=2_000_000,
    money_per_day=1.5,
    money_per_month=20.0,
)


def test_a_file_gives_rules_to_clients_and_narrower_ones_to_their_keys() -> None:
    [client] = parse(f"""
        providers = []
        [[clients]]
        id = "web"
        key_hash = "{HASH}"
        providers = ["openai"]
        expires = 2030-01-31T01:00:00+01:00
        money_per_day = 3
        [[clients.keys]]
        hash = "{OTHER_HASH}"
        models = ["gpt-5*"]
        requests_per_minute = 60
    """).clients.rows
    assert client.key_hashes == (HASH, OTHER_HASH)
    assert client.rules == ClientRules(
        providers=("openai",), expires="2030-01-31T00:00:00Z", money_per_day=3
    )
    assert client.key_rules == {OTHER_ID: ClientRules(models=("gpt-5*",), requests_per_minute=60)}


def test_all_that_is_wrong_with_a_client_is_reported_at_once() -> None:
    with pytest.raises(ProviderFileError) as refused:
        parse("""
            providers = []
            [[clients]]
            id = "not an id"
            key_hash = "sha256:short"
            models = []
            max_concurrent = 0
            tokens_per_day = "many"
            routes = ["/ok", "chat/completions"]
            [[clients.keys]]
            hash = "nothing"
            routes = ["v1/messages"]
            requests_per_minute = -1
        """)
    for where in (
        "id: is not made",
        "key_hash: ",
        "models: has not from 1",
        "max_concurrent: is not from 1",
        "tokens_per_day: is not a whole number",
        "(not an id): routes: has a pattern that fits no route",
        "keys.1: routes: has a pattern that fits no route: it must begin with /, * or ?",
        "keys.1: hash: ",
        "keys.1: requests_per_minute: is not from 1",
    ):
        assert where in str(refused.value)


def test_a_caller_has_the_rules_of_its_client_and_of_the_key_that_it_used() -> None:
    clients = parse(f"""
        providers = []
        [[clients]]
        id = "web"
        key_hash = "{HASH}"
        models = ["a"]
        keys = [{{ hash = "{OTHER_HASH}", max_concurrent = 1 }}]
    """).clients
    first, second = (clients.authenticate(key.reveal().encode()) for key in (KEY, OTHER))
    assert first is not None
    assert second is not None
    assert (first.rules, first.key_rules) == (ClientRules(models=("a",)), NO_RULES)
    assert (second.rules, second.key_rules) == (
        ClientRules(models=("a",)),
        ClientRules(max_concurrent=1),
    )


def test_a_caller_without_rules_has_the_one_value_that_costs_nothing() -> None:
    clients = parse(f'providers = []\n[[clients]]\nid = "web"\nkey_hash = "{HASH}"').clients
    found = clients.authenticate(KEY.reveal().encode())
    assert found is not None
    assert found.rules is NO_RULES
    assert found.key_rules is NO_RULES
    assert Caller("web", "k", ClientRules(), ClientRules()).rules is NO_RULES


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ('models = "gpt"', "models: is not a list of strings"),
        ("models = []", "models: has not from 1 to 200 patterns; leave it out for no rule"),
        ('models = [""]', "models: has a text that is empty or longer than 200 characters"),
        ("max_concurrent = 0", "max_concurrent: is not from 1 to"),
        ("requests_per_minute = 1.5", "requests_per_minute: is not a whole number"),
        ("money_per_day = nan", "money_per_day: is not from 0 to"),
        ('expires = "soon"', "expires: is not a time with its zone"),
        ("expires = 2030-01-31", "expires: is not a time with its zone"),
        ("expires = 2030-01-31T00:00:00", "expires: is not a time with its zone"),
        ('model = ["gpt"]', "model: is not a known field (did you mean models?)"),
        ('keys = [{ models = ["a"] }]', "keys.1: hash: is missing"),
        ('keys = [{ hash = "sha256" }]', "keys.1: hash: "),
        (f'keys = [{{ hash = "{OTHER_HASH}", max_concurrent = 0 }}]', "max_concurrent: is not"),
        ("keys = 1", "keys: is not an array of tables"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_told_with_its_name(fields: str, problem: str) -> None:
    with pytest.raises(ProviderFileError) as refused:
        parse(f'providers = []\n[[clients]]\nid = "web"\nkey_hash = "{HASH}"\n{fields}')
    assert problem in str(refused.value)


def test_rules_are_kept_as_text_and_read_again() -> None:
    check_rules(FULL)
    assert rules_from_text(rules_to_text(FULL)) == FULL
    assert rules_from_text(rules_to_text(NO_RULES)) == NO_RULES == rules_from_text("{}")
    assert rules_from_text('{"of_the_future": 1, "models": ["a"]}') == ClientRules(models=("a",))


def test_rules_that_were_read_are_looked_up_like_those_that_were_made() -> None:
    """The decoder of msgspec makes them without their constructor."""
    assert hash(msgspec.json.decode(b"{}", type=ClientRules)) == hash(ClientRules())
    read = msgspec.json.decode(b'{"models": ["a"]}', type=ClientRules)
    assert {ClientRules(models=("a",)): 1}[read] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"models": 1}', '{"max_concurrent": -1}', "{"])
def test_stored_rules_that_cannot_be_read_allow_nothing(text: str) -> None:
    assert rules_from_text(text).providers == ("/",)


def test_a_bound_that_is_whole_is_written_without_a_point() -> None:
    row = f'[[clients]]\nid = "web"\nkey_hash = "{HASH}"\nrequests_per_minute = 0'
    with pytest.raises(ProviderFileError, match=r"is not from 1 to \d+\b(?!\.)"):
        parse(f"providers = []\n{row}")
