"""The proxies that the HTTP benchmarks compare, each as a process of its own on one core."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from benchmarks.load import Target, pin
from bridgepool.gateway.commands._programs import client_row

_CORE = 1  # the load and the upstream have the other one


@attrs.frozen
class Contenders:
    """The running contenders."""

    floor: Target
    gateway: Target
    counting: Target
    """The gateway with its admin port, so that it counts for metrics."""
    libraries: Sequence[Target]
    """A proxy made of well-known libraries, with either client library."""
    nginx: Target | None
    """None where it is not installed."""
    key: str
    """What a client of the gateway shows."""

    @property
    def all(self) -> Sequence[Target]:
        """Those there are."""
        found = (self.floor, self.gateway, *self.libraries, self.nginx)
        return [target for target in found if target is not None]


@attrs.frozen
class Starter:
    """Starts programs; they end with its stack."""

    folder: Path
    stack: ExitStack

    def start(self, *command: str, core: int = _CORE, lines: int = 1) -> tuple[int, int]:
        """Start a program; return its pid, and the port at the end of its so many lines."""
        process = self.stack.enter_context(_process([*pin(core), *command], self.folder))
        assert process.stdout is not None
        for _ in range(lines):
            line = process.stdout.readline()
        found = re.search(r"(\d+)\s*$", line)
        if found is None:
            raise RuntimeError(f"{command} did not start: {line!r}")
        return process.pid, int(found.group(1))

    def start_module(self, name: str, *arguments: str, core: int = _CORE) -> tuple[int, int]:
        """Start a module of the benchmarks."""
        return self.start(sys.executable, "-m", f"benchmarks.{name}", *arguments, core=core)


@contextmanager
def running(folder: Path) -> Iterator[Contenders]:
    """Start the upstream and every contender; stop them all in the end.

    Args:
        folder: Where their files go: an access log each for the gateway and nginx.
    """
    with ExitStack() as stack:
        starter = Starter(folder, stack)
        start, start_module = starter.start, starter.start_module
        _, upstream = start_module("upstream", core=0)
        floor_pid, floor = start_module("floor_h11_proxy", str(upstream))
        libraries = []
        for name in ("httpx", "httpx2"):
            pid, port = start_module("peer_hypercorn_httpx", str(upstream), name)
            libraries.append(Target(f"hypercorn + {name}", port, pid))
        row, key = client_row("bench")
        providers = folder / "providers.toml"
        providers.write_text(PROVIDERS.format(upstream=upstream, client=row))
        command = [sys.executable, "-m", "bridgepool", "gateway"]
        command += ["--providers", str(providers), "--listen", "127.0.0.1:0"]
        command += ["--access-log", str(folder / "access.log")]
        gateway_pid, gateway = start(*command)
        counting_pid, counting = start(*command, "--admin-listen", "127.0.0.1:0", lines=2)
        nginx = None
        if shutil.which("nginx"):
            port = _free_port()
            config = folder / "nginx.conf"
            config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream))
            command = [*pin(_CORE), "nginx", "-c", str(config), "-p", str(folder)]
            process = stack.enter_context(_process(command, folder))
            _wait_for_port(port)
            nginx = Target("nginx as a proxy", port, process.pid)
        yield Contenders(
            Target("bare h11 proxy loop", floor, floor_pid),
            Target("bridgepool gateway", gateway, gateway_pid, "/bench"),
            Target("bridgepool gateway, metrics on", counting, counting_pid, "/bench"),
            libraries,
            nginx,
            key.reveal(),
        )


PROVIDERS = """
[[providers]]
name = "bench"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-of-the-upstream"]
allow_private = true

{client}
"""

# One worker in the foreground, an access log as the gateway has one, kept connections.
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/nginx-access.log;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    keepalive_requests 1000000000;
    upstream bench {{ server 127.0.0.1:{upstream}; keepalive 64;
                      keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://bench; proxy_http_version 1.1;
                      proxy_set_header Connection ""; proxy_buffering off; }}
    }}
}}
"""


@contextmanager
def _process(command: Sequence[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with (folder / "stderr.log").open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_for_port(port: int) -> None:
    for _ in range(10_000):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise RuntimeError(f"nothing listens on port {port}")
