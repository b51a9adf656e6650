"""The programs: `bridgepool gateway`, `control-plane` and `demo`; and `hash-key`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn, TypeVar

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from bridgepool._secret import Secret
from bridgepool.gateway._control_options import ControlPlaneOptions
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.commands._root import STORE_VARIABLE, fail
from bridgepool.gateway.providers import Client, new_client_key
from bridgepool.gateway.providers import hash_key as hash_of
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._logs import ProgramLogs, open_program_logs
from bridgepool.gateway.serving._signals import survive_reload_signals

logger = logging.getLogger("bridgepool.gateway.serving")

Options = TypeVar("Options", GatewayOptions, ControlPlaneOptions)

_GATEWAY_DEFAULTS = GatewayOptions()
_CONTROL_PLANE_DEFAULTS = ControlPlaneOptions()


def gateway(*, options: GatewayOptions = _GATEWAY_DEFAULTS) -> None:
    """Serve clients until it is signalled to end."""
    from bridgepool.gateway._process import serve_gateway

    if options.providers is None and options.control is None and options.store is None:
        options = attrs.evolve(options, store=os.environ.get(STORE_VARIABLE) or None)
    _run(serve_gateway, options)


def control_plane(*, options: ControlPlaneOptions = _CONTROL_PLANE_DEFAULTS) -> None:
    """Run a control plane until it is signalled to end."""
    from bridgepool.gateway.control._process import serve_control_plane

    if not options.store:
        options = attrs.evolve(options, store=os.environ.get(STORE_VARIABLE, ""))
    _run(serve_control_plane, options)


def _run(serve: Callable[[Options, ProgramLogs], int], options: Options) -> NoReturn:
    """Run a program, with logs that never delay it, and end with its exit status."""
    with survive_reload_signals(), open_program_logs(options.log_format) as logs:
        try:
            status = serve(options, logs)
        except StartError as error:
            fail(str(error))
        except ImportError:
            raise  # a missing extra
        except Exception:  # the interpreter's own report would wait for a stuck log
            logger.exception("program failed")
            status = 1
    sys.exit(status)


def demo(*, pace: Annotated[float, Parameter(show=False, validator=Number(gte=0))] = 0.3) -> None:
    """Show a gateway at work.

    Args:
        pace: Seconds from word to word of the simulated answers.
    """
    from bridgepool.gateway.demo._story import run_demo

    sys.exit(run_demo(pace))


def hash_key(client: str, *, stdin: bool = False) -> None:
    """Make a client's key and print its row.

    Args:
        client: The client's id, as the access log shows it.
        stdin: Take the key from standard input instead of making a new one.
    """
    given = sys.stdin.readline() if stdin else None
    try:
        row, key = client_row(client, given)
    except ValueError as error:
        fail(str(error))
    if given is None:
        print(f"The key of {client}, shown only now: {key.reveal()}", file=sys.stderr, flush=True)
    # The empty line ends a last line of the file that has no line break.
    print(row if sys.stdout.isatty() else f"\n{row}")


def client_row(client_id: str, given: str | None = None) -> tuple[str, Secret]:
    """Make the `[[clients]]` row for a client, and its key.

    Args:
        client_id: the client's id.
        given: the key to hash, white space around it allowed; None makes a new one.

    Raises:
        ValueError: one of them cannot be used; the text repeats no key.
    """
    if given is not None and not given.strip():
        raise ValueError("there is no key on standard input")
    key = new_client_key() if given is None else Secret(given.strip())
    client = Client(id=client_id, key_hashes=(hash_of(key),))
    return f'[[clients]]\nid = "{client.id}"\nkey_hash = "{client.key_hashes[0]}"', key
