"""The `bridgepool` command; what it does is in `bridgepool.gateway.commands`."""

from __future__ import annotations

import atexit
import gc
import importlib.metadata
import os
import re
import sys
from typing import Final, NoReturn

# Those with commands; each brings what the ones before it bring.
_EXTRAS: Final = ("gateway", "control", "postgres")
_INTERRUPTED: Final = 130  # exit status, as a shell reports SIGINT
_NOBODY_READS: Final = 141  # and SIGPIPE


def main() -> None:
    """Run the command line; the entry point of the `bridgepool` script."""
    # The last collection at exit takes a tenth of the time of a short command, for memory that
    # is freed with the process.
    atexit.register(gc.freeze)
    try:
        try:
            from bridgepool.gateway.commands import app

            app(sys.argv[1:])
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where the reader's absence can be handled
    except ImportError as error:  # from the imports here or in the command that was run
        _fail_for_missing(error)
    except BaseException as error:
        if _consists_of(error, BrokenPipeError):  # such as `bridgepool … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush
            sys.exit(_NOBODY_READS)
        if _consists_of(error, KeyboardInterrupt):
            sys.exit(_INTERRUPTED)
        raise


def _consists_of(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_consists_of(one, kind) for one in error.exceptions)
    return isinstance(error, kind)


def _fail_for_missing(error: ImportError) -> NoReturn:
    """End with the name of the extra that is missing; raise what is not about an extra."""
    cause: BaseException | None = error
    while isinstance(cause, ImportError):  # modules of ours and the command line wrap the first one
        module = (cause.name or "").partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and module not in ("", "bridgepool"):
            advice = f"pip install 'bridgepool[{_extra_of(module)}]'"
            print(
                f"bridgepool: the command needs {module}, which is not installed: {advice}",
                file=sys.stderr,
            )
            sys.exit(2)
        cause = cause.__cause__
    raise error


def _extra_of(module: str) -> str:
    """Return the first extra that brings a module, as the package declares them."""
    name = re.escape(module).replace("_", "[-_]")
    declared = "\n".join(importlib.metadata.requires("bridgepool") or ())
    for extra in _EXTRAS:
        if re.search(rf"^{name}\b(?![-_.]).*extra == ['\"]{extra}['\"]", declared, re.MULTILINE):
            return extra
    return _EXTRAS[0]


if __name__ == "__main__":
    main()
