"""`make mutants`: plant each known bug in a copy of the source; the tests must catch each.

Usage: python -m tools.mutants [PART OF A NAME ...]
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.planted_bugs import BUGS, Bug
from tools.planted_gateway_bugs import GATEWAY_BUGS
from tools.planted_limit_bugs import LIMIT_BUGS
from tools.planted_observability_bugs import OBSERVABILITY_BUGS
from tools.planted_process_bugs import PROCESS_BUGS
from tools.planted_remote_bugs import REMOTE_BUGS
from tools.planted_store_bugs import STORE_BUGS
from tools.planted_upstream_bugs import UPSTREAM_BUGS
from tools.planted_usage_bugs import USAGE_BUGS
from tools.planted_websocket_bugs import WEBSOCKET_BUGS

ROOT = Path(__file__).resolve().parent.parent
KNOWN = (
    *BUGS,
    *REMOTE_BUGS,
    *STORE_BUGS,
    *GATEWAY_BUGS,
    *PROCESS_BUGS,
    *UPSTREAM_BUGS,
    *LIMIT_BUGS,
    *OBSERVABILITY_BUGS,
    *USAGE_BUGS,
    *WEBSOCKET_BUGS,
)
# A bug may show as a test that never ends.
TIMEOUT = 240
# All tests of all bugs, on source without any.
BASELINE_TIMEOUT = 1200
_groups: set[int] = set()  # of the programs that run, by the id of their first process
# In the summary; a log line begins with its level.
_FAILURES = ("FAILED tests/", "ERROR tests/")


def run_tests(copy: Path, tests: tuple[str, ...], timeout: float) -> tuple[bool, str]:
    """Run tests on the copy; return whether they passed, and what they said last."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", *tests]
    command += ["-p", "no:cacheprovider", "-W", "ignore"]
    code, output = run_group(command, environment, timeout)
    if code is None:
        return False, f"a test did not end in {timeout} s"
    failed = [line for line in output.splitlines() if line.startswith(_FAILURES)]
    last = failed[0] if failed else (output.splitlines() or ["nothing"])[-1]
    return code == 0, last.removeprefix("FAILED ")[:110]


def run_group(
    command: list[str], environment: dict[str, str], timeout: float
) -> tuple[int | None, str]:
    """Run a program with all that it starts; return its exit code and what it printed.

    In a session of its own. After the timeout its process group is killed and the code is None:
    what it has started holds its output open, and would run on.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        _groups.add(process.pid)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            _groups.discard(process.pid)
    return process.returncode, output


def try_bug(bug: Bug, timeout: float = TIMEOUT) -> tuple[bool, str, float]:
    """Plant `bug` in a fresh copy and run its tests on it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src" / "bridgepool", copy / "bridgepool")
        for edit in bug.edits:
            edit.apply(copy / "bridgepool")
        begun = time.monotonic()
        passed, last = run_tests(copy, bug.tests, timeout)
        return passed, last, time.monotonic() - begun


def main(names: list[str]) -> int:
    bugs = [bug for bug in KNOWN if not names or any(name in bug.name for name in names)]
    files = tuple(dict.fromkeys(test for bug in bugs for test in bug.tests))
    passed, last, seconds = try_bug(Bug("no bug", (), files), BASELINE_TIMEOUT)
    print(f"{'no bug':45} {'passes' if passed else 'FAILS'} in {seconds:.0f} s", flush=True)
    if not passed:
        print(f"the tests fail without any bug: {last}", file=sys.stderr)
        return 2
    missed = []
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        try:
            for bug, (passed, last, seconds) in zip(bugs, workers.map(try_bug, bugs), strict=True):
                verdict = "MISSED" if passed else "caught"
                print(f"{bug.name:45} {verdict} in {seconds:3.0f} s  {last}", flush=True)
                missed += [bug.name] if passed else []
        except KeyboardInterrupt:  # a terminal interrupts no other session
            workers.shutdown(wait=False, cancel_futures=True)
            for group in tuple(_groups):
                os.killpg(group, signal.SIGKILL)
            raise
    print(f"{len(bugs) - len(missed)} of {len(bugs)} planted bugs caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
