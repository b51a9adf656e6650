"""Ports for servers that must know theirs before they listen, or listen there again."""

import os
import random
import socket

_SYSTEM_RANDOM = random.SystemRandom()  # Hypothesis seeds the other one
_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_given = set[int]()  # whoever got one may not listen there yet


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nobody listens; another one each time.

    Linux gives those from 32768 to whoever asks for any port, so a port of them can be taken before
    its server listens. This one is below them, and of this test process only.
    """
    while True:
        port = _SYSTEM_RANDOM.randrange(10_000, 32_000, _WORKERS) + _WORKER
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
