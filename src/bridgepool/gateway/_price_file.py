"""The file of the price table, which is read again while the gateway runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from bridgepool.gateway.limits._prices import PriceTable, PriceTableError, parse_prices
from bridgepool.gateway.serving._listening import StartError

logger = logging.getLogger("bridgepool.gateway")


@attrs.frozen
class PriceFile:
    """The file of `--price-table`.

    Args:
        path: The file.
        replace: Puts a table in force, or raises `PriceTableError`.
    """

    _path: Path
    _replace: Callable[[PriceTable], None]
    # One look at a time: a file system that hangs must not collect threads.
    _limiter: trio.CapacityLimiter = attrs.field(
        init=False, factory=lambda: trio.CapacityLimiter(1)
    )

    async def look_again(self) -> None:
        """Read the file again; keep the previous table if it cannot be used.

        Cancellation: Nothing is changed.
        """
        fields = {"path": str(self._path)}
        try:
            self._replace(
                await trio.to_thread.run_sync(
                    _read, self._path, abandon_on_cancel=True, limiter=self._limiter
                )
            )
        except PriceTableError as error:
            fields["error"] = str(error)
            logger.error("price table cannot be used; keeping the previous one", extra=fields)
        else:
            logger.info("price table read again", extra=fields)


def load_price_table(path: Path | None) -> PriceTable | None:
    """Read what tokens cost, at the start; None when no file is given. Blocks.

    Raises:
        StartError: It cannot be used.
    """
    try:
        return None if path is None else _read(path)
    except PriceTableError as error:
        raise StartError(f"--price-table {path}: {error}") from None


def _read(path: Path) -> PriceTable:
    try:
        return parse_prices(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PriceTableError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PriceTableError("is not UTF-8") from None
