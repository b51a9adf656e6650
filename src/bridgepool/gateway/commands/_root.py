"""The root command, and what all commands share."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from cyclopts import (
    App,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)
from cyclopts.config import Dict, Env
from rich.text import Text

from bridgepool._version import __version__

_WANTED: Final[Mapping[object, str]] = {int: "an integer", float: "a number", bool: "true or false"}


def _usage_error(error: CycloptsError) -> Text:
    """Return one sentence about a mistake in the arguments."""
    command = " ".join(("bridgepool", *(error.command_chain or ())))
    text = " ".join(str(error).split())
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        text = f"takes no argument {error.unused_tokens[0]!r}"
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        argument = error.argument
        if argument.field_info.is_positional and not argument.tokens:
            text = f"the argument {argument.name.removeprefix('--').upper()} is missing"
        elif not argument.tokens:
            lacks = "is missing" if error.keyword is None else "has no value"
            text = f"the option {argument.name} {lacks}"
    elif isinstance(error, CoercionError) and error.token is not None and error.argument:
        wanted = _WANTED.get(error.target_type, "what it takes")
        text = f'Invalid value "{error.token.value}" for {error.argument.name}: is not {wanted}'
    end = "" if text.endswith((".", "?")) else "."
    return Text(f"{command}: {text}{end} See `{command} --help`.")


app: App = App(
    name="bridgepool",
    help="Change a proxy's upstreams while it runs: no stream cut, nothing leaked.",
    version=__version__,
    default_parameter=Parameter(negative=""),
    error_formatter=_usage_error,
)

STORE_VARIABLE: Final = "BRIDGEPOOL_STORE"
_VARIABLE: Final = "env"  # the source of what a variable gives


def fail(message: str) -> NoReturn:
    """End with the status for "asked for something that cannot be done"."""
    print(f"bridgepool: {message}", file=sys.stderr)
    sys.exit(2)


def store_argument(store: str) -> str:
    """Refuse a store whose password stands in the argument list, where every user sees it."""
    if urlsplit(store).password:
        fail(
            f"--store: holds a password, which all users of this machine can see; put it into "
            f"PGPASSWORD or ~/.pgpass, or the whole of it into {STORE_VARIABLE}"
        )
    return store


def _read_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take from the file of `--config` what neither a flag nor a variable gives."""
    for token in arguments["--config"].tokens:
        try:
            document = tomllib.loads(Path(token.value).read_text("utf-8"))
        except UnicodeDecodeError:
            fail(f"--config {token.value}: is not UTF-8")
        except (OSError, ValueError) as error:  # TOMLDecodeError
            fail(f"--config {token.value}: {getattr(error, 'strerror', None) or error}")
        Dict(document, source=token.value)(app, commands, arguments)


def _refuse_password(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    for token in arguments["--store"].tokens:
        if token.source == "cli":
            store_argument(token.value)


def _drop_empty_variables(
    app: App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Take an empty variable for one that is not set, as shells and service files write it."""
    for argument in arguments:
        argument.tokens[:] = [
            token for token in argument.tokens if token.source != _VARIABLE or token.value.strip()
        ]


def _program_config(variables: str) -> tuple[Callable[..., None], ...]:
    """Return where a program's options come from besides its flags; the first one wins."""
    environment = Env(variables, source=_VARIABLE, command=False, show=False)
    return _refuse_password, environment, _drop_empty_variables, _read_config_file


# Imported when they are run, so that the help of the others does not wait for the data plane; the
# help here is shown in place of their docstrings.
_PACKAGE: Final = "bridgepool.gateway.commands"
app.command(
    f"{_PACKAGE}._programs:gateway",
    config=_program_config("BRIDGEPOOL_GATEWAY_"),
    help="""Serve OpenAI- and Anthropic-style clients; follow every change of the providers.

    Prints one line `listening on URL` for each address once it serves. SIGINT or SIGTERM stops
    accepting and lets running requests finish; a second signal ends at once.

    Each option can also be given by an environment variable, such as
    BRIDGEPOOL_GATEWAY_DRAIN_TIMEOUT, or in the file of `--config`.
    """,
)
app.command(
    f"{_PACKAGE}._programs:hash_key",
    help="""Make a client's key and print its row for the provider file.

    The row goes to standard output, so that it can be appended to the file; the new key is
    shown once, on standard error. Only its hash is kept.
    """,
)
app.command(
    f"{_PACKAGE}._programs:control_plane",
    config=_program_config("BRIDGEPOOL_CONTROL_PLANE_"),
    help="""Run a control plane: an API for operators and a service for gateways.

    Prints `listening on URL` for each address of the API and `serving gateways on URL` for each
    that gateways connect to, once it serves. SIGINT or SIGTERM shuts it down; a second signal
    ends it at once. Gateways serve on meanwhile.

    Each option can also be given by an environment variable, such as
    BRIDGEPOOL_CONTROL_PLANE_DRAIN_TIMEOUT, or in the file of `--config`.
    """,
)
app.command(
    f"{_PACKAGE}._programs:demo",
    help="Show a gateway whose providers change while it streams. Needs no key, takes seconds.",
)
_GROUPS: Final = {
    "audit": "List changes, the newest first. --json includes each row, its secrets masked.",
    "clients": "Make and read clients, and change their rules. Further keys: `bridgepool keys`.",
    "encryption": "Manage the keys that encrypt the secrets of a store.",
    "gateways": "List the gateways, the revision that each serves, and what it rejected.",
    "keys": "Make, list and revoke the keys of clients, gateways and admins.",
    "providers": "Read and change the providers that gateways follow.",
    "store": "Maintain the store of a control plane.",
    "usage": "Sum what requests have used, or list the records with --each. Days are those of UTC.",
}
for _name, _help in _GROUPS.items():
    app.command(f"{_PACKAGE}._{_name}:{_name}", name=_name, help=_help)
