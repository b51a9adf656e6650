"""One side of a connection; see the theory of operation in `bridgepool.remote._rpc`."""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
import trio

from bridgepool.remote import _codec as codec
from bridgepool.remote import _errors as errors
from bridgepool.remote._errors import (
    ConnectionLostError,
    InvalidMessageError,
    RemoteError,
    UnsendableError,
)
from bridgepool.remote._messages import Cancel, Goodbye
from bridgepool.remote._rpc_handlers import (
    MAX_CALLS_IN_FLIGHT,
    MAX_REASON_CHARACTERS,
    Method,
    NoticeHandler,
    PendingCall,
    check_size,
    lost_error,
)
from bridgepool.transports._errors import MessageTooLargeError

P = TypeVar("P")
R = TypeVar("R")

_NOTICE_HIGH_WATER: Final = 16  # frames in the outbox; notices wait while there are more
_CLOSE_TIMEOUT: Final = 2.0  # seconds for a goodbye to go out, and for the channel to close

_log = logging.getLogger("bridgepool.remote")


@attrs.define(eq=False)
class RpcPeer:
    """The other side of a channel; made by `open_rpc`."""

    _channel: trio.abc.Channel[bytes]
    methods: dict[str, Method[Any]]
    """What the other side may call."""
    notices: dict[str, NoticeHandler[Any]]
    """How its notices are handled."""
    _max_frame_bytes: int
    _nursery: trio.Nursery = attrs.field(init=False)
    _outbox: deque[tuple[bytes, bool]] = attrs.field(factory=deque, init=False)  # frame, is answer
    # method -> what makes the frame of its latest notice, or None; sent when the outbox is empty
    _latest: dict[str, Callable[[], bytes | None]] = attrs.field(factory=dict, init=False)
    _work: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    # id -> what was called here and is not answered
    _calls: dict[int, PendingCall] = attrs.field(factory=dict, init=False)
    _places: trio.Semaphore = attrs.field(
        factory=lambda: trio.Semaphore(MAX_CALLS_IN_FLIGHT), init=False
    )
    # id -> scope of the handler of what the other side called
    _handlers: dict[int, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _unanswered: int = attrs.field(default=0, init=False)  # of the other side's, unsent answers too
    _next_id: int = attrs.field(default=0, init=False)
    _lost: trio.Event = attrs.field(factory=trio.Event, init=False)
    _loss: ConnectionLostError | None = attrs.field(default=None, init=False)
    _left: bool = attrs.field(default=False, init=False)
    _sends_goodbye: bool = attrs.field(default=False, init=False)  # its last frame is one
    # Both shielded, so that a goodbye goes out also when everything is cancelled at once. `_end`
    # gives both a deadline.
    _writing: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )
    _closing: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)  # the channel

    async def call(
        self,
        method: str,
        params: object,
        result: type[R],
    ) -> R:
        """Call a method of the other side and return its result.

        Waits while `MAX_CALLS_IN_FLIGHT` are unanswered.

        Args:
            method: Its name.
            params: A message.
            result: The class of the message that is expected.

        Raises:
            RemoteError: The other side answered with an error.
            InvalidMessageError: The answer is not a `result`.
            UnsendableError: The parameters cannot be encoded, or are too large.
            ConnectionLostError: There will be no answer.
            trio.ClosedResourceError: The block of `open_rpc` was left.

        Cancellation:
            The other side is notified, and cancels the handler of the call. An answer that is on
            its way is dropped.
        """
        self._check_open()
        encoded = codec.encode(params)
        await self._places.acquire()
        try:
            self._check_open()
            call_id = self._new_id()
            frame = codec.encode_request(call_id, method, encoded)
            check_size(frame, self._max_frame_bytes)
        except BaseException:
            self._places.release()
            raise
        call = self._calls[call_id] = PendingCall()
        self._enqueue(frame)
        try:
            await call.answered.wait()
        except trio.Cancelled:
            if call_id in self._calls and not self._is_over():
                self._enqueue(codec.encode_notice("cancel", Cancel(call_id)))
            raise
        if (answer := call.answer) is None:
            self._check_open()
            raise AssertionError("a call ends with an answer or with the connection")
        if answer.error is not None:
            raise RemoteError(answer.error.code, answer.error.message)
        return codec.decode(answer.result, result)

    async def notify(self, method: str, params: object) -> None:
        """Send a notice. It is not answered; waits while the other side is slow to read.

        Raises:
            UnsendableError: The parameters cannot be encoded, or are too large.
            ConnectionLostError: The connection is lost.
            trio.ClosedResourceError: The block of `open_rpc` was left.

        Cancellation: Nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        self._check_open()
        frame = codec.encode_notice(method, params)
        check_size(frame, self._max_frame_bytes)
        while len(self._outbox) >= _NOTICE_HIGH_WATER:
            await self._room.park()
            self._check_open()
        self._enqueue(frame)

    def publish(self, method: str, params: object) -> None:
        """Send a notice when the channel can take it; one of it that is not sent yet is replaced.

        Never waits. Does nothing when the connection is lost.

        Raises:
            UnsendableError: The parameters cannot be encoded, or are too large.
        """
        frame = codec.encode_notice(method, params)
        check_size(frame, self._max_frame_bytes)
        self.publish_later(method, lambda: frame)

    def publish_later(self, method: str, make: Callable[[], bytes | None]) -> None:
        """Do the same with a frame that is made when it can be sent; None to send nothing."""
        if self._is_over():
            return
        self._latest.pop(method, None)  # so that it comes after what was published before
        self._latest[method] = make
        self._work.unpark()

    async def send_goodbye(self, code: str, reason: str, *, deadline: float = math.inf) -> None:
        """Send the reason why the connection ends, and end it within two seconds.

        Args:
            code: The reason, for programs.
            reason: The reason, for people.
            deadline: The connection is cut at this time, if it has not ended before.

        Resource handling: The channel is closed; pending calls fail at both ends.
        """
        self._end(ConnectionLostError(code, reason), goodbye=True, deadline=deadline)
        await self._closed.wait()

    async def wait_lost(self) -> ConnectionLostError:
        """Wait until the connection has ended; return why."""
        await self._lost.wait()
        return self._lost_error()

    async def _read(self) -> None:
        try:
            while self._loss is None:
                self._receive(await self._channel.receive())
        except trio.EndOfChannel:
            self._end(ConnectionLostError(errors.CLOSED, "the other side closed it"))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(lost_error(error))

    async def _write(self) -> None:
        channel, outbox = self._channel, self._outbox
        try:
            with self._writing:
                while outbox or self._loss is None:
                    if not outbox:
                        if not self._latest:
                            await self._work.park()
                        elif (latest := self._latest.pop(next(iter(self._latest)))()) is not None:
                            await channel.send(latest)
                        continue
                    frame, is_answer = outbox.popleft()
                    if is_answer:  # before it is sent: the next call may come before we go on
                        self._unanswered -= 1
                    self._room.unpark()
                    await channel.send(frame)
        except MessageTooLargeError as error:
            self._end(ConnectionLostError(errors.TOO_LARGE, str(error)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(lost_error(error))
        finally:
            with self._closing:
                await channel.aclose()
            self._closed.set()

    def _receive(self, data: bytes) -> None:
        if self._loss is not None:
            return  # the connection has ended since this arrived
        try:
            self._handle_frame(data)
        except InvalidMessageError as error:
            _log.warning("protocol violation by the other side: %s", error)
            self._end(ConnectionLostError(error.code, error.reason), goodbye=True)

    def _handle_frame(self, data: bytes) -> None:
        frame = codec.decode_frame(data, self._max_frame_bytes)
        if isinstance(frame, codec.Response):
            self._handle_answer(frame)
        elif isinstance(frame, codec.Request):
            self._handle_call(frame)
        else:
            self._handle_notice(frame)

    def _handle_answer(self, frame: codec.Response) -> None:
        call = self._calls.pop(frame.id, None)
        if call is not None:
            self._places.release()
            call.answer = frame
            call.answered.set()

    def _handle_call(self, frame: codec.Request) -> None:
        if frame.id in self._handlers:
            raise InvalidMessageError(errors.DUPLICATE_ID, f"call {frame.id} is not answered yet")
        if self._unanswered >= MAX_CALLS_IN_FLIGHT:
            reason = f"more than {MAX_CALLS_IN_FLIGHT} calls are not answered yet"
            raise InvalidMessageError(errors.TOO_MANY_CALLS, reason)
        self._unanswered += 1
        method = self.methods.get(frame.method)
        if method is None:
            self._answer_error(frame.id, errors.UNKNOWN_METHOD, "there is no such method")
            return
        try:
            params = codec.decode(frame.params[0], method.params)
        except InvalidMessageError as error:
            self._answer_error(frame.id, error.code, error.reason)
            return
        scope = self._handlers[frame.id] = trio.CancelScope()
        self._nursery.start_soon(self._run_handler, frame.id, frame.method, method, params, scope)

    async def _run_handler(
        self, call_id: int, name: str, method: Method[P], params: P, scope: trio.CancelScope
    ) -> None:
        try:
            with scope:
                result = await method.handle(params)
        except* Exception as group:  # the handler's: its caller gets an error
            only = len(group.exceptions) == 1
            self._answer_exception(call_id, name, group.exceptions[0] if only else group)
        else:
            if scope.cancelled_caught:
                self._answer_error(call_id, errors.CANCELLED, "the caller cancelled it")
            else:
                self._answer(call_id, name, result)
        finally:
            del self._handlers[call_id]

    def _handle_notice(self, frame: codec.Notice) -> None:
        try:
            if frame.method == "cancel":
                scope = self._handlers.get(codec.decode(frame.params[0], Cancel).id)
                if scope is not None:
                    scope.cancel()
                return
            if frame.method == "goodbye":
                goodbye = codec.decode(frame.params[0], Goodbye)
                self._end(ConnectionLostError(goodbye.code, goodbye.reason, by_peer=True))
                return
            handler = self.notices.get(frame.method)
            params = None if handler is None else codec.decode(frame.params[0], handler.params)
        except InvalidMessageError as error:
            _log.warning("notice ignored: %s", error)
            return
        if handler is None:
            return  # of a newer minor version, perhaps
        try:
            handler.handle(params)
        except Exception:  # the handler's: there is no answer, and the connection goes on
            _log.exception("handler of notice %s raised", frame.method)

    def _answer(self, call_id: int, name: str, result: object) -> None:
        try:
            frame = codec.encode_result(call_id, result)
            if len(frame) > self._max_frame_bytes:
                self._answer_error(call_id, errors.TOO_LARGE, "the result is too large to send")
                return
        except UnsendableError as error:
            self._answer_exception(call_id, name, error)
            return
        self._enqueue(frame, is_answer=True)

    def _answer_exception(self, call_id: int, name: str, error: Exception) -> None:
        if isinstance(error, RemoteError):
            self._answer_error(call_id, error.code, error.message)
            return
        _log.error("handler of %s raised", name, exc_info=error)
        self._answer_error(call_id, errors.INTERNAL, "unexpected error; see the log over there")

    def _answer_error(self, call_id: int, code: str, message: str) -> None:
        frame = codec.encode_error(call_id, code, message[:MAX_REASON_CHARACTERS])
        self._enqueue(frame, is_answer=True)

    def _enqueue(self, frame: bytes, *, is_answer: bool = False) -> None:
        if self._is_over():
            return
        self._outbox.append((frame, is_answer))
        self._work.unpark()

    def _end(
        self, why: ConnectionLostError, *, goodbye: bool = False, deadline: float = math.inf
    ) -> None:
        if self._loss is not None:
            return
        self._loss = why
        deadline = min(deadline, trio.current_time() + _CLOSE_TIMEOUT)
        self._writing.deadline = self._closing.deadline = deadline
        self._outbox.clear()
        self._latest.clear()
        self._sends_goodbye = goodbye
        if goodbye:
            farewell = Goodbye(why.code, why.reason[:MAX_REASON_CHARACTERS])
            self._outbox.append((codec.encode_notice("goodbye", farewell), False))
        for scope in self._handlers.values():
            scope.cancel()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._places.release()
            call.answered.set()
        self._room.unpark_all()
        self._work.unpark_all()
        self._lost.set()

    def _is_over(self) -> bool:
        return self._left or self._loss is not None

    def _check_open(self) -> None:
        if self._left:
            raise trio.ClosedResourceError("the block of open_rpc was left")
        if self._loss is not None:
            raise self._lost_error()

    def _lost_error(self) -> ConnectionLostError:
        """Return a new error each time: once raised, its traceback leads to this peer."""
        loss = self._loss or ConnectionLostError(errors.CLOSED, "it ended")
        return ConnectionLostError(loss.code, loss.reason, by_peer=loss.by_peer)

    def _new_id(self) -> int:
        while (found := self._next_id) in self._calls:
            self._next_id = (found + 1) & codec.MAX_CALL_ID
        self._next_id = (found + 1) & codec.MAX_CALL_ID
        return found
