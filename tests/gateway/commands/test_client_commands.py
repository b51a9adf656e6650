"""The commands about clients, and what all commands that open a store warn of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateway.commands.commands import Shell


def test_what_a_client_may_is_shown_changed_and_removed(shell: Shell) -> None:
    shell.good("keys", "create", "client", "ada", "--expires", "2030-01-31T01:00:00+01:00")
    shell.good(
        "clients", "update", "ada", "--models", "a*", "--models", "b", "--max-concurrent", "3"
    )
    shown = shell.good("clients", "show", "ada", "--json").json()
    assert (shown["rules"]["models"], shown["rules"]["max_concurrent"]) == (["a*", "b"], 3)
    [key] = shown["keys"]
    assert key["rules"]["expires"] == "2030-01-31T00:00:00Z"
    assert "models a*, b; max_concurrent 3" in shell.good("clients", "list").out
    shell.good("clients", "update", "ada", "--no-models", "--key", key["id"], "--no-expires")
    shell.good("clients", "update", "ada", "--no-models")
    shown = shell.good("clients", "show", "ada", "--json").json()
    assert (shown["rules"]["models"], shown["rules"]["max_concurrent"]) == (None, 3)
    assert shown["keys"][0]["rules"]["expires"] is None
    shell.good("clients", "update", "ada", "--money-per-day", "0", "--money-per-month", "12.5")
    out = shell.good("clients", "show", "ada").out
    assert "money_per_day 0; money_per_month 12.5" in out
    assert re.search(
        r"money_per_month +0 spent or held, 12.5 left until \d{4}-\d\d-01T00:00:00Z", out
    )
    budgets = shell.good("clients", "show", "ada", "--json").json()["budgets"]
    assert [(one["rule"], one["remaining"]) for one in budgets] == [
        ("money_per_day", 0), ("money_per_month", 12.5),
    ]  # fmt: skip
    assert "max_concurrent" in shell.run("clients", "update", "ada", "--max-concurrent", "0").err
    assert "expires" in shell.run("clients", "update", "ada", "--expires", "soon").err
    assert "rules" in shell.run("keys", "create", "admin", "boss", "--max-concurrent", "1").err


def test_a_client_is_created_with_its_rules_at_once(shell: Shell) -> None:
    """In between it could do everything."""
    done = shell.good("clients", "create", "web", "--models", "gpt-5*", "--money-per-day", "2")
    assert done.out.startswith("bp_")
    shown = shell.good("clients", "show", "web", "--json").json()
    assert (shown["rules"]["models"], shown["rules"]["money_per_day"]) == (["gpt-5*"], 2)
    [key] = shown["keys"]
    assert (key["id"] in done.out, key["rules"]["models"]) == (True, None)
    assert f"client web: key {key['id']}, shown only now (revision 1)" in done.err
    assert shell.run("clients", "create", "web").status == 2
    refused = shell.run("clients", "create", "other", "--routes", "models")
    assert (refused.status, refused.out) == (2, "")


def test_a_rule_is_not_both_set_and_removed(shell: Shell) -> None:
    shell.good("keys", "create", "client", "ada")
    shell.good("clients", "update", "ada", "--models", "a")
    done = shell.run("clients", "update", "ada", "--models", "b", "--no-models")
    assert done.status == 2
    assert "--models and --no-models contradict each other" in done.err
    done = shell.run("clients", "update", "ada", "--money-per-day", "1", "--no-money-per-day")
    assert "--money-per-day and --no-money-per-day contradict" in done.err
    assert shell.good("clients", "show", "ada", "--json").json()["rules"]["models"] == ["a"]


def test_a_pattern_that_fits_no_route_is_refused(shell: Shell) -> None:
    shell.good("keys", "create", "client", "ada")
    for arguments in (("clients", "update", "ada"), ("keys", "create", "client", "ada")):
        done = shell.run(*arguments, "--routes", "/models", "--routes", "chat/completions")
        assert done.status == 2
        assert "rules.routes: has a pattern that fits no route: it must begin with /" in done.err
    shell.good("clients", "update", "ada", "--routes", "/chat/*", "--routes", "*")


def test_a_warning_names_the_file_that_it_is_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Commands printed the event alone: `every user can read the encryption keys: chmod 600`."""
    store = tmp_path / "s.db"
    shell = Shell(capsys, monkeypatch, ("--store", str(store)))
    made = shell.run("providers", "list", "--create")
    assert f"bridgepool: created a new, empty store (store: {store})\n" in made.err
    key = tmp_path / "s.db.key"
    key.chmod(0o644)
    found = shell.run("providers", "list").err
    assert found.startswith("bridgepool: every user can read the encryption keys: chmod 600 (")
    assert str(key) in found
