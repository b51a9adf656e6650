"""Running commands in this process, as a terminal would."""

from __future__ import annotations

import io
import json
from typing import Any

import attrs
import pytest

from bridgepool.__main__ import main
from bridgepool.gateway.commands import app


@attrs.frozen
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    # A test knows what it asked for.
    def json(self) -> Any:
        """Read its output."""
        return json.loads(self.out)


def run_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> Done:
    """Run `bridgepool …` to its end, as its entry point does; outside of Trio."""
    monkeypatch.setattr("sys.argv", ["bridgepool", *arguments])
    capsys.readouterr()
    try:
        main()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    out, err = capsys.readouterr()
    return Done(status, out, err)


@attrs.frozen
class Shell:
    """Runs commands, each with the options that say where."""

    _capsys: pytest.CaptureFixture[str]
    _monkeypatch: pytest.MonkeyPatch
    where: tuple[str, ...]

    def run(self, *arguments: str, stdin: str = "") -> Done:
        """Run one command to its end."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        try:
            app([*arguments, *self.where], result_action="return_value")
            status = 0
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        out, err = self._capsys.readouterr()
        return Done(status, out, err)

    def good(self, *arguments: str, stdin: str = "") -> Done:
        """Run one command that has to succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.status == 0, done.err
        return done
