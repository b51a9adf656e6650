"""Bugs of the programs as processes: logs, signals, shutdown. As in `planted_gateway_bugs`."""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_STUCK = ("tests/gateway/commands/test_stuck_logs.py",)
_LINES = ("tests/gateway/serving/test_line_writer.py",)
_RELOAD = ("tests/gateway/commands/test_reload_signals.py",)
_SHUTDOWN = ("tests/gateway/serving/test_shutdown.py", "tests/http/test_closing.py")
_LOOKUPS = ("tests/gateway/serving/test_key_lookups.py",)
_API_LOG = ("tests/gateway/control/api/test_access_log.py",)
_WRITER = "gateway/serving/_line_writer.py"

PROCESS_BUGS: tuple[Bug, ...] = (
    bug(
        "a line is written by whoever logs it", _STUCK, f"{_WRITER}:LineWriter._put",
        "self._lines.put(line)", "self._write(line)",
    ),
    bug(
        "the end waits for a log that is not read", _STUCK, f"{_WRITER}:close_writers",
        "thread.join(max(0.0, deadline - time.monotonic()))", "thread.join()",
    ),
    bug(
        "lost lines are not reported", _LINES, f"{_WRITER}:LineWriter._write_lines",
        "if error is None and unreported:", "if error is not None and unreported:",
    ),
    bug(
        "a lock is not its own thread's to take again", _LINES, f"{_WRITER}:LineWriter",
        "factory=threading.RLock", "factory=threading.Lock",
    ),
    bug(
        "a renamed log file is written on", _RELOAD, f"{_WRITER}:LogFile.reopen",
        "self._reopen = True", "self._reopen = False",
    ),
    bug(
        "a renewed certificate is not used", _RELOAD,
        "gateway/serving/_certificate.py:ServerCertificate._choose",
        "connection.context = self._current.context", "pass",
    ),
    bug(
        "the API answers refused keys at once", _API_LOG,
        "gateway/serving/_key_lookups.py:KeyLookups.find",
        "await trio.sleep(max(self.refused.refuse(peer, now) - (now - began), 0.0))",
        "self.refused.refuse(peer, now)",
    ),
    bug(
        "a gateway answers refused keys at once", ("tests/gateway/proxy/test_refused_keys.py",),
        "gateway/proxy/_app.py:Gateway._serve",
        "await trio.sleep(self._refused_keys.refuse(exchange.client, trio.current_time()))",
        "self._refused_keys.refuse(exchange.client, trio.current_time())",
    ),
    bug(
        "unknown keys load the control plane", ("tests/gateway/sources/test_authorization.py",),
        "gateway/sources/_authorization.py:RemoteClients._question",
        "if digest in self._known else", "if digest else",
    ),
    bug(
        "unknown keys load the database", _LOOKUPS, "gateway/serving/_key_lookups.py",
        "_MAX_UNKNOWN: Final = 2 ", "_MAX_UNKNOWN: Final = 1000 ",
    ),
    bug(
        "unknown keys are looked up before their delay", _LOOKUPS,
        "gateway/serving/_key_lookups.py:KeyLookups.find",
        "await trio.sleep(self.refused.delay_owed(peer, began))", "pass",
    ),
    bug(
        "the API logs its health checks only", _API_LOG,
        "gateway/control/api/_guard.py:Guard._serve",
        "segments not in _HEALTH:", "segments in _HEALTH:",
    ),
    bug(
        "keys that read less are used", ("tests/system/test_keys_read_again.py",),
        "gateway/control/store/_keyring.py:_count_readable",
        "for name in after.keys() - before:", "for name in ():",
    ),
    bug(
        "SIGUSR2 ends the program", _RELOAD, "gateway/serving/_signals.py",
        "(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)", "(signal.SIGHUP, signal.SIGUSR1)",
    ),
    bug(
        "the listeners close before the delay", _SHUTDOWN,
        "gateway/serving/_shutdown.py:Shutdown.run", "await trio.sleep(self._delay)",
        "await trio.lowlevel.checkpoint()",
    ),
    bug(
        "kept connections are not ended in the delay", _SHUTDOWN,
        "http/_server.py:GracefulClose.announce", "server.state.announced = True", "pass",
    ),
)  # fmt: skip
"""The bugs to plant."""
