"""What the rules of a client and of its key allow together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._rules import compile_patterns, permissions
from bridgepool.gateway.providers import ClientRules
from bridgepool.gateway.providers._client_rules import NO_RULES


def test_without_a_rule_on_what_is_used_there_is_nothing_to_judge() -> None:
    assert permissions(NO_RULES) is None
    assert permissions(ClientRules(max_concurrent=1), ClientRules(tokens_per_day=1)) is None


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (("gpt-5*",), "gpt-5", True),
        (("gpt-5*",), "gpt-5-mini", True),
        (("gpt-5*",), "my-gpt-5", False),
        (("gpt-5",), "gpt-5\n", False),
        (("GPT-5",), "gpt-5", False),
        (("gpt-?",), "gpt-5", True),
        (("gpt-?",), "gpt-", False),
        (("a.c",), "abc", False),
        (("[ab]",), "a", False),
        (("org/*",), "org/sub/model", True),
        (("a", "b"), "b", True),
        (("a|b",), "a", False),
        (("*",), "", True),
    ],
)
def test_a_pattern_fits_the_whole_name(patterns: tuple[str, ...], name: str, allowed: bool) -> None:
    found = permissions(ClientRules(models=patterns))
    assert found is not None
    assert found.restrict_models
    assert found.allow_model(name) is allowed
    by_provider = permissions(ClientRules(providers=patterns))
    by_route = permissions(ClientRules(routes=patterns))
    assert by_provider is not None
    assert by_route is not None
    assert (by_provider.allow_provider(name), by_provider.allow_model("x")) == (allowed, True)
    assert (by_route.allow_route(name), by_route.restrict_models) == (allowed, False)


@given(
    st.lists(st.text("ab*?", min_size=1, max_size=8), min_size=1, max_size=3),
    st.text("abc\n*", max_size=10),
)
def test_stars_and_question_marks_stand_for_what_they_say(patterns: list[str], name: str) -> None:
    def fits(pattern: str, rest: str) -> bool:
        if not pattern or not rest:
            return not rest and not pattern.strip("*")
        if pattern[0] == "*":
            return fits(pattern[1:], rest) or fits(pattern, rest[1:])
        return pattern[0] in ("?", rest[0]) and fits(pattern[1:], rest[1:])

    found = compile_patterns(patterns).fullmatch(name) is not None
    assert found is any(fits(pattern, name) for pattern in patterns)


def test_no_name_makes_a_pattern_slow() -> None:
    """Clients choose the names of models. With three stars it took 0.3 s, with more for ever."""
    for pattern in ("*-" * 90 + "latest", "*a?" * 60, "a*" * 90 + "b"):
        assert not compile_patterns([pattern]).fullmatch("a-" * 250 + "--")


def test_a_key_only_narrows_what_its_client_may() -> None:
    found = permissions(
        ClientRules(models=("gpt-*",), expires="2030-01-02T00:00:00Z"),
        ClientRules(models=("*-mini", "claude-*"), expires="2030-01-01T00:00:00Z"),
    )
    assert found is not None
    assert found.allow_model("gpt-mini")
    assert not found.allow_model("gpt-5")
    assert not found.allow_model("claude-5")
    new_year = 1_893_456_000.0
    assert not found.has_expired(new_year - 0.001)
    assert found.has_expired(new_year)
