"""`bridgepool clients`: the clients of a control plane, and their rules."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from bridgepool.gateway.commands._connecting import NO_WAIT, WHERE_DEFAULT, AsJson, Wait, Where, do
from bridgepool.gateway.commands._field_options import given_values, make_options
from bridgepool.gateway.commands._output import (
    print_json,
    print_table,
    report_change,
    report_key,
    value_text,
)
from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control.operations import _clients
from bridgepool.gateway.control.operations._clients import add_client, get_client, list_clients
from bridgepool.gateway.providers import ClientRules
from bridgepool.gateway.providers._client_rules import RULE_FIELDS, rules_document

clients = App(name="clients")

if TYPE_CHECKING:

    class NewRules:
        """Options for the rules of a new key."""

    class ChangedRules:
        """Options to change rules."""

else:
    NewRules, ChangedRules = (
        make_options(name, RULE_FIELDS.values(), changing=changing, module=__name__)
        for name, changing in (("NewRules", False), ("ChangedRules", True))
    )
NO_NEW_RULES = NewRules()
NOTHING_CHANGED = ChangedRules()


def read_rules(options: NewRules | ChangedRules) -> dict[str, object]:
    """Return the rules that options give; ends the program if one cannot be read."""
    given, read = given_values(options, RULE_FIELDS), dict[str, object]()
    for name, value in given.items():
        try:
            read[name] = RULE_FIELDS[name].read(value, null=True)
        except ValueError as error:
            fail(f"--{name.replace('_', '-')}: {error}")
    return read


@clients.command(name="list")
def list_(*, as_json: AsJson = False, where: Where = WHERE_DEFAULT) -> None:
    """List all clients."""
    found = do(where, list_clients).clients
    if as_json:
        print_json(found)
        return
    print_table(
        ("CLIENT", "KEYS", "CREATED", "RULES"),
        ((one.id, len(one.keys), one.created, _shown(one.rules)) for one in found),
    )


@clients.command
def show(name: str, *, as_json: AsJson = False, where: Where = WHERE_DEFAULT) -> None:
    """Show a client, its keys, the rules of both, and what is left of their budgets.

    Args:
        name: The id of the client.
    """
    one = do(where, get_client, name)
    found = one.client
    if as_json:
        print_json(msgspec.to_builtins(found) | {"budgets": msgspec.to_builtins(one.budgets)})
        return
    rows: list[tuple[str, object]] = [("id", found.id), ("created", found.created)]
    rows += [("revision", found.revision), ("rules", _shown(found.rules))]
    rows += [(f"key {key.id}", _shown(key.rules)) for key in found.keys]
    for budget in one.budgets:
        whose = "" if budget.scope == "client" else f" of key {budget.id}"
        spent, left = value_text(budget.spent), value_text(budget.remaining)
        ends = f"{budget.ends:%Y-%m-%dT%H:%M:%SZ}"
        rows.append((f"{budget.rule}{whose}", f"{spent} spent or held, {left} left until {ends}"))
    print_table(("FIELD", "VALUE"), rows)


@clients.command
def create(
    name: str,
    *,
    rules: NewRules = NO_NEW_RULES,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Add a client with its rules, and print its first key on standard output, this once.

    Args:
        name: The id of the client.
        rules: Its rules; without any, everything is allowed.
    """
    given = read_rules(rules)
    made = do(where, add_client, name, rules=given)
    sys.exit(report_key(where, f"client {name}", made, wait))


@clients.command
def update(
    name: str,
    *,
    rules: ChangedRules = NOTHING_CHANGED,
    key: Annotated[str | None, Parameter(metavar="ID")] = None,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Change rules of a client. Rules that no option names stay as they are.

    Args:
        name: The id of the client.
        rules: Its rules.
        key: The id of one key of the client: change the rules of that key, which can only narrow
            those of the client.
    """
    changes = read_rules(rules)
    if key is not None:
        one = do(where, _clients.update_client_key, name, key, changes)
        sys.exit(report_change(where, one, f"updated key {key} of {name}", wait))
    change = do(where, _clients.update_client, name, changes)
    sys.exit(report_change(where, change, f"updated client {name}", wait))


def _shown(rules: ClientRules) -> str:
    given = rules_document(rules).items()
    return "; ".join(f"{name} {value_text(value)}" for name, value in given)
