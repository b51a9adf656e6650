"""Keep a pool's providers as fresh as their source: reload on notice, on failure, and by poll.

Theory of operation. One task reloads and applies, so reloads never overlap and none arrives out
of order. Another does nothing but take notices and raise one flag, so publishers are never held
up and a burst is one flag. The flag is lowered when a reload begins: a notice that comes while
one runs causes another.

    reload ── applied, unchanged ──▶ wait for the poll          ┐ a notice ends either wait,
       ▲  └── failed, out of date ─▶ wait for the next retry    ┘ `min_interval` after the last
       └───────────────────────────────────────────────────────   reload began at the earliest

An out-of-date answer is retried like a failure, since it shows that the source (a replica, a
cache) has not caught up, and nobody may give notice when it does.
"""

import inspect
import logging
from math import inf
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from ._backoff import Backoff, shorten
from ._changes import ChangeBus, ChangeSubscription
from ._errors import PoolClosedError, ReloadError
from ._ledger import ReplaceOutcome
from ._options import WatchOptions
from ._pool import Replacement
from ._services import open_background_nursery
from ._snapshot import ProviderSnapshot, require_snapshot
from ._statistics import JSON, as_json

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)

_log = logging.getLogger("bridgepool.reload")
# A poll comes up to this share early, so that many watchers do not poll in step.
_POLL_SPREAD = 0.2
# How many times `min_interval` lies between reloads at most, in a storm of notices.
_LONGEST_SPACING = 10


class ProviderReloader(Protocol[P_co]):
    """A source of snapshots, which you implement."""

    async def reload(self) -> ProviderSnapshot[P_co]:
        """Return the providers as they are now.

        Called by one task, never twice at a time. It may be cancelled at any checkpoint.

        Raises:
            ReloadError: There is no usable answer; what is in force stays. Other exceptions
                have the same effect, and are logged with their traceback as bugs.
        """
        ...


class Replaceable(Protocol[P_contra]):
    """What `watch_providers` needs of a pool; a `CachedBridgePool` is one."""

    def replace_providers(self, snapshot: ProviderSnapshot[P_contra]) -> Replacement:
        """Put a snapshot in force, or report why not."""
        ...


@attrs.define(eq=False)
class ReloadStatus:
    """The progress of one `watch_providers`, for metrics and readiness.

    Kept up to date by the watcher, in place. Times are `trio.current_time` of its run.
    """

    attempts: int = 0
    """Reloads begun."""
    applied: int = 0
    """Reloads that put new providers in force."""
    unchanged: int = 0
    """Reloads that found the providers in force."""
    out_of_date: int = 0
    """Reloads that found a lower revision than the one in force, and were refused."""
    failures: int = 0
    """Reloads that raised, or took too long."""
    failures_in_a_row: int = 0
    """Failed and out-of-date reloads since the last good one."""
    last_attempt: float | None = None
    """When the last reload began."""
    last_success: float | None = None
    """When the last good reload began: what is in force was true at the source then."""
    last_error: str | None = None
    """Why a reload failed or was refused last; kept after later good ones. Holds no secrets as
    long as the reloader's `ReloadError` texts hold none; of other exceptions it holds the type."""
    last_error_time: float | None = None
    """When that was found."""
    revision: int | None = None
    """The revision in force, as far as the source gives one."""
    following: bool = True
    """Whether notices can still come; if not, only the poll is left."""

    @property
    def staleness(self) -> float:
        """Seconds since the source last confirmed what is in force; `math.inf` before that."""
        if self.last_success is None:
            return inf
        return trio.current_time() - self.last_success

    def as_dict(self) -> dict[str, JSON]:
        """Return all fields and `staleness` as `json.dumps` takes them; None stands for never."""
        return as_json(self, staleness=self.staleness)

    def _note_good(self, snapshot: ProviderSnapshot[P], outcome: ReplaceOutcome) -> None:
        self.last_success = self.last_attempt
        self.revision = snapshot.revision
        self.failures_in_a_row = 0
        if outcome is ReplaceOutcome.APPLIED:
            self.applied += 1
        else:
            self.unchanged += 1

    def _note_bad(self, error: str) -> None:
        self.failures_in_a_row += 1
        self.last_error = error
        self.last_error_time = trio.current_time()


async def watch_providers(  # noqa: ASYNC114, ASYNC128 -- `_Watcher` calls started()
    pool: Replaceable[P],
    reloader: ProviderReloader[P],
    changes: trio.abc.ReceiveChannel[object] | None = None,
    *,
    poll_interval: float = 300.0,
    reload_timeout: float = 30.0,
    min_interval: float = 0.1,
    retry_delay: float = 0.1,
    max_retry_delay: float = 30.0,
    status: ReloadStatus | None = None,
    task_status: trio.TaskStatus[ReloadStatus] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep `pool` up to date with `reloader`, until cancelled.

    ::

        status = await nursery.start(watch_providers, pool, reloader, changes)

    Started, with the `ReloadStatus`, when the source has confirmed the providers in force. A reload
    that fails keeps the last good snapshot and is retried until it succeeds; the watcher ends only
    with the pool, or with an answer that is not a snapshot, which is a mistake in the reloader's
    code. When `changes` ends, only the poll is left.

    Args:
        pool: The pool to keep up to date.
        reloader: Where the providers come from.
        changes: Notices that something may have changed; whatever is received counts the same.
            Open it before this is called, and no change falls in between. It is not closed.
            None for a source that gives no notices: it is only polled.
        poll_interval: Seconds after a good reload until the next without a notice, up to a
            fifth less at random; `math.inf` to rely on notices.
        reload_timeout: Seconds after which a reload is cancelled and counts as failed.
        min_interval: Seconds between the beginnings of two reloads that notices cause, so
            that a storm of them cannot become a storm of reloads. Doubled with each further
            one that had to wait, up to ten times this, until
            notices rest for twice this.
        retry_delay: Seconds until the first retry at most; doubled for each further one, and
            each wait is a random part of it.
        max_retry_delay: Seconds that no wait for a retry exceeds.
        status: Where to keep the status; give one to read it before the first success.
        task_status: For `nursery.start`.

    Raises:
        PoolClosedError: The pool was closed before a snapshot was in force. Once started, the
            watcher returns when the pool is closed.
        TypeError: `reload` returned something that is not a `ProviderSnapshot`, or is not async; at
            the first reload or at any later one. It is not retried. Or the pool, the reloader or
            the channel lacks the method that is called.
        ValueError: An option is out of its range.
        RuntimeError: It is not called under Trio, but under asyncio, for example.
    """
    options = WatchOptions(
        poll_interval=poll_interval,
        reload_timeout=reload_timeout,
        min_interval=min_interval,
        retry_delay=retry_delay,
        max_retry_delay=max_retry_delay,
    )
    async with open_background_nursery() as nursery:
        _require(pool, "replace_providers", "the pool")
        _require(reloader, "reload", "the reloader")
        status = ReloadStatus() if status is None else status
        watcher = _Watcher(pool, reloader, options, status, task_status)
        if changes is None:
            status.following = False
        else:
            _require(changes, "receive", "the channel of changes")
            nursery.start_soon(watcher.take_notices, changes)
        await watcher.reload_until_closed()
    if not watcher.has_started:
        raise PoolClosedError("the pool was closed before a snapshot was in force")


def _require(value: object, method: str, what: str) -> None:
    if not callable(getattr(value, method, None)):
        raise TypeError(
            f"watch_providers(pool, reloader, changes): {what} needs a method `{method}`, and a "
            f"{type(value).__name__} has none"
        )


class _WrongAnswerError(TypeError):
    """A reloader returned something that is not a snapshot: a mistake that no retry mends."""


@attrs.define(eq=False)
class _Watcher(Generic[P]):
    pool: Replaceable[P]
    reloader: ProviderReloader[P]
    options: WatchOptions
    status: ReloadStatus
    task_status: trio.TaskStatus[ReloadStatus]
    # when the last reload began, and the last notice came
    began: float = attrs.field(default=-inf, init=False)
    last_notice: float = attrs.field(default=-inf, init=False)
    # seconds from the beginning of a reload to the next one that a notice causes
    spacing: float = attrs.field(init=False)
    # the waits between failed reloads
    backoff: Backoff = attrs.field(init=False)
    # set by a notice; a new one with each reload
    noticed: trio.Event = attrs.field(factory=trio.Event, init=False)
    # what was logged of the failures since the last good reload
    logged: str | None = attrs.field(default=None, init=False)
    has_started: bool = attrs.field(default=False, init=False)
    # the pool was closed
    is_closed: bool = attrs.field(default=False, init=False)

    @spacing.default
    def _first_spacing(self) -> float:
        return self.options.min_interval

    @backoff.default
    def _first_backoff(self) -> Backoff:
        return Backoff(self.options.retry_delay, self.options.max_retry_delay)

    async def take_notices(self, changes: trio.abc.ReceiveChannel[object]) -> None:
        """Raise the flag for each notice, until there are no more."""
        try:
            async for _ in changes:
                self._note_notice()
            how = "ended"
        except Exception as error:  # their channel: whatever is wrong with it, the poll goes on
            how = f"failed ({type(error).__name__})"
        self.status.following = False
        interval = self.options.poll_interval
        _log.warning("change notices %s; polling every %g s from now on", how, interval)

    def _note_notice(self) -> None:
        now = trio.current_time()
        if now >= self.last_notice + 2 * self.options.min_interval:
            self.spacing = self.options.min_interval
        self.last_notice = now
        self.noticed.set()

    async def reload_until_closed(self) -> None:
        """Reload whenever it is time, until the pool is closed."""
        await self._reload()
        while not self.is_closed:
            await self._pause()
            await self._reload()

    async def _pause(self) -> None:
        """Wait for a notice; until the poll, or after failures until a retry."""
        with trio.move_on_after(self._longest_pause()) as timer:
            await self.noticed.wait()
        if timer.cancelled_caught:
            return
        # A reload may begin again when there is space to the last; in a storm the space grows.
        allowed, shortest = self.began + self.spacing, self.options.min_interval
        if trio.current_time() >= allowed:
            self.spacing = shortest
        else:
            self.spacing = min(2 * self.spacing, _LONGEST_SPACING * shortest)
            await trio.sleep_until(allowed)

    def _longest_pause(self) -> float:
        if self.status.failures_in_a_row:
            return self.backoff.next_delay()
        self.backoff.reset()
        return shorten(self.options.poll_interval, _POLL_SPREAD)

    async def _reload(self) -> None:
        """Reload once, put in force what came, and note how it went."""
        status = self.status
        self.noticed = trio.Event()
        self.began = status.last_attempt = trio.current_time()
        status.attempts += 1
        try:
            snapshot = await self._ask()
            # No checkpoint since the answer came: what the reloader shows beside its snapshot
            # and what the pool has in force change in one tick.
            self._note(snapshot, self.pool.replace_providers(snapshot).outcome)
        except ReloadError as error:
            self._note_failed(str(error))
        except _WrongAnswerError:
            raise
        except Exception as error:  # their code: a bug there must not end the watcher
            problem = f"unexpected {type(error).__name__}; its traceback is in the log"
            if self.logged != problem:  # once, not at each retry
                _log.exception("reload failed by an unexpected exception")
                self.logged = problem
            self._count_failed(problem)

    async def _ask(self) -> ProviderSnapshot[P]:
        name = type(self.reloader).__name__
        with trio.move_on_after(self.options.reload_timeout) as timer:
            answer: object = self.reloader.reload()
            if not inspect.isawaitable(answer):
                raise _WrongAnswerError(f"{name}.reload must be async: write `async def reload`")
            snapshot = await answer
        if timer.cancelled_caught:
            raise ReloadError(f"no answer within {self.options.reload_timeout:g} s")
        if not isinstance(snapshot, ProviderSnapshot):
            got = type(snapshot).__name__
            raise _WrongAnswerError(f"{name}.reload must return a ProviderSnapshot, not a {got}")
        return snapshot

    def _note(self, snapshot: ProviderSnapshot[P], outcome: ReplaceOutcome) -> None:
        status = self.status
        if outcome is ReplaceOutcome.CLOSED:
            self.is_closed = True
        elif outcome is ReplaceOutcome.OUT_OF_DATE:
            problem = f"the source is at revision {snapshot.revision}, behind ours"
            # The revision of a source that counts anew is another one each time.
            self._log_problem(problem, kind="out of date")
            status.out_of_date += 1
            status._note_bad(problem)
        else:
            if status.failures_in_a_row:
                _log.info("reload succeeded after %d failed ones", status.failures_in_a_row)
            status._note_good(snapshot, outcome)
            self.logged = None
            if not self.has_started:
                self.has_started = True
                self.task_status.started(status)

    def _note_failed(self, problem: str) -> None:
        self._log_problem(problem, kind=problem)
        self._count_failed(problem)

    def _log_problem(self, problem: str, *, kind: str) -> None:
        # The same one is logged as a warning once, not at each retry.
        level = logging.DEBUG if self.logged == kind else logging.WARNING
        self.logged = kind
        _log.log(level, "reload failed: %s", problem)

    def _count_failed(self, problem: str) -> None:
        self.status.failures += 1
        self.status._note_bad(problem)


class MemoryReloader(Generic[P]):
    """Providers that live in this process: set them here, and every watcher follows.

    ::

        source = MemoryReloader(ProviderSnapshot([...]))
        await nursery.start(watch_providers, pool, source, source.subscribe())
        source.replace(ProviderSnapshot([...]))
    """

    def __init__(self, snapshot: ProviderSnapshot[P]) -> None:
        require_snapshot(snapshot, "MemoryReloader")
        self._snapshot = snapshot
        self._bus = ChangeBus()

    @property
    def snapshot(self) -> ProviderSnapshot[P]:
        """What the next reload returns."""
        return self._snapshot

    def replace(self, snapshot: ProviderSnapshot[P]) -> None:
        """Set the providers and give notice. Not async, never blocks.

        Raises:
            TypeError: It is not a `ProviderSnapshot`.
            RuntimeError: This is another thread, or another Trio run, than that of a watcher.
        """
        require_snapshot(snapshot, "MemoryReloader.replace")
        self._bus.publish()
        self._snapshot = snapshot

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices, for `watch_providers`; see `ChangeBus.subscribe`."""
        return self._bus.subscribe()

    async def reload(self) -> ProviderSnapshot[P]:
        """Return the providers as they are set. A checkpoint."""
        await trio.lowlevel.checkpoint()
        return self._snapshot
