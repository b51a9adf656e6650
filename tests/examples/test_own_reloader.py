from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.examples.support import EXAMPLES, running


async def test_upstreams_follow_the_file_and_stay_when_it_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "upstreams"
    failed = "WARNING:bridgepool.reload:reload failed: the list of upstreams "
    async with running("own_reloader.py", str(file)) as program:
        await program.said(failed + "cannot be read: [Errno 2]")
        file.write_text("10.0.0.1:80\n")
        await program.said("10.0.0.1:80")
        file.write_text("10.0.0.1\n")
        await program.said(failed + "has '10.0.0.1', which is not HOST:PORT")
        file.write_text("")
        await program.said(failed + "is empty")
        file.write_text("10.0.0.2:80\n10.0.0.3:80\n")
        await program.said("10.0.0.2:80, 10.0.0.3:80")


def test_it_keeps_the_contract_of_reloaders(tmp_path: Path) -> None:
    for name in ("own_reloader.py", "check_your_reloader.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "check_your_reloader.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
