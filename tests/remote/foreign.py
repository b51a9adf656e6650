"""A client of the protocol, written from its page alone: nothing of bridgepool is used here."""

import base64
import hashlib
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SIZES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_COUNTS = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
_NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xCA: ">f", 0xCB: ">d"}
_NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


def pack(value: Any) -> bytes:
    """Write MessagePack, always in the long forms: what is read must take them too."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else struct.pack(">Bq", 0xD3, value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        items = b"".join(pack(key) + pack(item) for key, item in value.items())
        return struct.pack(">BI", 0xDF, len(value)) + items
    return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))


def unpack(data: bytes) -> Any:
    """Read one MessagePack value, with nothing after it."""
    value, end = unpack_from(data, 0)
    if end != len(data):
        raise ValueError("something is behind it")
    return value


def unpack_from(data: bytes, at: int) -> tuple[Any, int]:
    """Read the value that begins there; return it and where it ends."""
    if at >= len(data):
        raise ValueError("it ends too early")
    head, at = data[at], at + 1
    if head < 0x80 or head >= 0xE0:
        return (head if head < 0x80 else head - 256), at
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if head in _NUMBERS:
        return _number(data, at, _NUMBERS[head])
    if 0xA0 <= head < 0xC0 or head in _SIZES:
        size, at = (head & 31, at) if head < 0xC0 else _number(data, at, _SIZES[head])
        if at + size > len(data):
            raise ValueError("it ends too early")
        return data[at : at + size].decode(), at + size
    if head >= 0xA0 and head not in _COUNTS:
        raise ValueError("it is not used by the protocol")
    count, at = (head & 15, at) if head < 0xA0 else _number(data, at, _COUNTS[head])
    is_map, items = head < 0x90 or head >= 0xDE, []
    for _ in range(count * (2 if is_map else 1)):
        item, at = unpack_from(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if is_map else items), at


def _number(data: bytes, at: int, form: str) -> tuple[Any, int]:
    end = at + struct.calcsize(form)
    if end > len(data):
        raise ValueError("it ends too early")
    return struct.unpack(form, data[at:end])[0], end


@attrs.define(eq=False)
class ForeignClient:
    """One connection: frames as plain values."""

    stream: trio.SocketStream
    closed: int | None = None
    """The close code of the server."""
    _unread: bytes = b""

    async def send(self, frame: Any, opcode: int = 2) -> None:
        """Send one message; bytes go as they are."""
        data, mask = frame if isinstance(frame, bytes) else pack(frame), os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, len(data))
        if len(data) < 126:  # RFC 6455 wants the shortest form
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | len(data))
        elif len(data) < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, len(data))
        await self.stream.send_all(head + mask + masked)

    async def receive(self) -> Any:
        """Receive the next frame; None when the server has closed."""
        message = b""
        while True:
            first, size = await self._receive(2)
            if size >= 126:
                size = int.from_bytes(await self._receive(2 if size == 126 else 8))
            data, opcode = await self._receive(size), first & 15
            if opcode == 8:
                self.closed = int.from_bytes(data[:2])
                await self.send(data[:2], 8)
                return None
            if opcode == 9:
                await self.send(data, 10)
            elif opcode in (0, 2):
                message += data
                if first & 0x80:
                    return unpack(message)

    async def call(self, call_id: int, method: str, params: Any) -> Any:
        """Call, and return the answer's error and result."""
        await self.send([0, call_id, method, [params]])
        kind, answered, error, result = await self.receive()
        assert (kind, answered) == (1, call_id)
        return error if error is not None else result

    async def _receive(self, size: int) -> bytes:
        while len(self._unread) < size:
            more = await self.stream.receive_some()
            if not more:
                raise EOFError
            self._unread += more
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    async def shake_hands(self, path: str, key: str | None) -> tuple[int, bytes]:
        """Ask for the session; return the status and the body of the answer."""
        nonce = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", f"Sec-WebSocket-Key: {nonce.decode()}"]
        lines += ["Sec-WebSocket-Version: 13"]
        lines += [] if key is None else [f"Authorization: Bearer {key}"]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._unread:
            self._unread += await self.stream.receive_some()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 101:
            expected = base64.b64encode(hashlib.sha1(nonce + _GUID).digest())
            assert b"sec-websocket-accept: " + expected.lower() in head.lower()
            return status, b""
        while more := await self.stream.receive_some():
            self._unread += more
        return status, self._unread


@asynccontextmanager
async def open_foreign_client(port: int) -> AsyncIterator[ForeignClient]:
    """Connect to a server on this machine."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield ForeignClient(stream)
