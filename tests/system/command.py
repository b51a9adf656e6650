"""Commands of administrators, run to their end in this process: all but its start is as it is.

The programs that serve are processes, and so are the commands of `tests/gateway/commands`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from unittest.mock import patch

import attrs
import trio

from bridgepool.gateway.commands import app


@attrs.frozen
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def everything(self) -> str:
        """All that it has printed."""
        return self.out + self.err


_ALONE = trio.CapacityLimiter(1)
"""The environment and the standard streams are those of the whole process."""


async def run_to_end(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> Ended:
    """Run `bridgepool …` on a thread of its own."""
    run = partial(_run, arguments, env or {}, stdin)
    return await trio.to_thread.run_sync(run, limiter=_ALONE)


def _run(arguments: tuple[str, ...], env: Mapping[str, str], stdin: str) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, env),
        patch("sys.stdin", io.StringIO(stdin)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            app([*arguments], result_action="return_value")
            status = 0
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return Ended(status, out.getvalue(), err.getvalue())
