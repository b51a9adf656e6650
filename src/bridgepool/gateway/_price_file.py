"""The file of the price table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bridgepool.gateway.limits._prices import PriceTable, PriceTableError, parse_prices
from bridgepool.gateway.serving._files_in_use import FileInUse
from bridgepool.gateway.serving._listening import StartError


def read_price_table(path: Path) -> PriceTable:
    """Read what tokens cost. Blocks.

    Raises:
        StartError: It cannot be used.
    """
    try:
        return parse_prices(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except PriceTableError as error:
        problem = str(error)
    raise StartError(f"--price-table {path}: {problem}")


def price_file(
    path: Path, table: PriceTable, replace: Callable[[PriceTable], None]
) -> FileInUse[PriceTable]:
    """Return the file of a price table that is in use.

    Args:
        path: The file.
        table: What it held.
        replace: Puts another table in force, or raises `PriceTableError`.
    """

    def use(other: PriceTable) -> None:
        try:
            replace(other)
        except PriceTableError as error:
            raise StartError(f"--price-table {path}: {error}") from None

    return FileInUse("price table", path, partial(read_price_table, path), table, use)
