"""Thousands of clients in one thread, without Trio: their own work must not show in the figures."""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

Address = tuple[str, int]
_BODY_BEGINS = b"\r\n\r\n"


@attrs.define(eq=False)
class Asker:
    """One client: asks, waits for the answer, asks again."""

    request: bytes
    ends: bytes
    """What an answer ends with."""
    begun: float = 0.0
    """When its connection was begun."""
    sent: float = 0.0
    """When its last request was sent."""
    answered: list[tuple[float, float]] = attrs.field(factory=list)
    """For each answer: when it was complete, and seconds since its request."""
    first_answer: float = 0.0
    """Seconds from the beginning of the connection to the end of the first answer."""
    first_byte: float = 0.0
    """The same to the first bytes of the first answer's body."""
    status: bytes = b""
    """Of the first answer."""
    closed: bool = False
    asks_again: bool = True
    _sock: socket.socket = attrs.field(init=False)
    _buffer: bytes = b""

    def connect(self, address: Address) -> int:
        """Begin to connect; return the file descriptor."""
        self._sock = socket.socket()
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begun = time.perf_counter()
        self._sock.connect_ex(address)
        return self._sock.fileno()

    def ask(self) -> None:
        """Send a request."""
        self.sent = time.perf_counter()
        self._sock.send(self.request)

    def receive(self) -> None:
        """Read what has come."""
        try:
            data = self._sock.recv(65536)
        except ConnectionError:
            data = b""
        now = time.perf_counter()
        if not data:
            self.closed = True
            self._sock.close()
            return
        self._buffer += data
        if not self.first_byte and _BODY_BEGINS in self._buffer:
            self.first_byte = now - self.begun
            self.status = self._buffer.split(b" ", 2)[1]
        if not self._buffer.endswith(self.ends):
            return
        if not self._buffer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"answered {self._buffer[:200]!r}")
        self._buffer = b""
        self.answered.append((now, now - self.sent))
        self.first_answer = self.first_answer or now - self.begun
        if self.asks_again:
            self.ask()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


@attrs.define(eq=False)
class Crowd:
    """Clients that ask at the same time. Made by `open_crowd`."""

    _poll: select.epoll = attrs.field(factory=select.epoll)
    _askers: dict[int, Asker] = attrs.field(factory=dict)

    def add(self, address: Address, request: bytes, ends: bytes, *, again: bool = True) -> Asker:
        """Add a client, which connects now; it asks once, or again and again."""
        asker = Asker(request, ends, asks_again=again)
        number = asker.connect(address)
        self._askers[number] = asker
        self._poll.register(number, select.EPOLLOUT)
        return asker

    def run(self, seconds: float) -> None:
        """Have all clients ask for so long."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self.step(left)

    def step(self, timeout: float) -> None:
        """Wait for something to happen, and serve it."""
        for number, event in self._poll.poll(timeout):
            asker = self._askers[number]
            if event & select.EPOLLOUT:
                self._poll.modify(number, select.EPOLLIN)
                if asker.request:
                    asker.ask()
            else:
                asker.receive()
                if asker.closed:
                    del self._askers[number]

    def close(self) -> None:
        """Hang up."""
        for asker in self._askers.values():
            asker.close()
        self._poll.close()


@contextmanager
def open_crowd() -> Iterator[Crowd]:
    """Open an empty crowd; all hang up in the end."""
    crowd = Crowd()
    try:
        yield crowd
    finally:
        crowd.close()


def percentile(samples: Sequence[float], part: float) -> float:
    """Return the sample that `part` of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
