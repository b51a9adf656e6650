"""Plain TCP at less cost: the calls that every message makes.

`trio.SocketStream` guards each call with a generator-based context manager, and receives by
trying first, which as a rule fails: an answer is not there when one begins to wait for it.
Waiting first saves a system call and an exception. Together that is about a tenth of what a
proxied request costs. Other streams are used as they are.
"""

import errno
import os

import trio

_MOST = 65536  # bytes to read at once


def send_now(stream: trio.SocketStream, data: bytes) -> int:
    """Send what the kernel takes without waiting; return how many bytes. Not a checkpoint.

    Raises:
        trio.BrokenResourceError: The connection is broken.
        trio.ClosedResourceError: This side has closed it.
    """
    try:
        return os.write(stream.socket.fileno(), data)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise _as_trio_says(error) from error


async def send_all(stream: trio.abc.Stream, data: bytes) -> None:
    """Do what the stream's own `send_all` does; only one task may send at a time.

    Raises:
        trio.BrokenResourceError: The connection is broken.
        trio.ClosedResourceError: This side has closed it.
    """
    if type(stream) is not trio.SocketStream:
        await stream.send_all(data)
        return
    await trio.lowlevel.checkpoint_if_cancelled()
    sent = send_now(stream, data)
    if sent < len(data):
        await stream.send_all(data[sent:])
    else:
        await trio.lowlevel.cancel_shielded_checkpoint()


async def receive_some(stream: trio.abc.Stream) -> bytes:
    """Do what the stream's own `receive_some` does.

    Raises:
        trio.BrokenResourceError: The connection is broken.
        trio.ClosedResourceError: This side has closed it, perhaps meanwhile.
        trio.BusyResourceError: Another task receives already.
    """
    if type(stream) is not trio.SocketStream:
        return bytes(await stream.receive_some())  # no copy of bytes
    while True:
        try:
            await trio.lowlevel.wait_readable(stream.socket)
            return os.read(stream.socket.fileno(), _MOST)
        except BlockingIOError:  # readiness is a hint
            continue
        except (OSError, ValueError) as error:  # ValueError: waiting on a closed socket
            raise _as_trio_says(error) from error


def _as_trio_says(error: OSError | ValueError) -> Exception:
    if isinstance(error, ValueError) or error.errno == errno.EBADF:
        return trio.ClosedResourceError("this side has closed the connection")
    return trio.BrokenResourceError(os.strerror(error.errno or errno.EIO))
