"""What tokens cost, by a table of the operator. Pure."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Final

import attrs

from bridgepool.gateway.limits._rules import compile_patterns

_MILLION: Final = 1e6
_PRICES: Final = ("input", "output", "cached_read", "cached_write")
_OPTIONAL_PRICES: Final = ("cached_read", "cached_write")
_ROW_FIELDS: Final = {"model", "provider", *_PRICES}
_TOP_FIELDS: Final = {"currency", "models", "unknown"}


class PriceTableError(ValueError):
    """A price table cannot be used; the text says where and why."""


@attrs.frozen
class Price:
    """What a million tokens cost."""

    input: float
    """Of the input, but for what is read from or written to a cache."""
    output: float
    cached_read: float
    cached_write: float

    def of(self, input: int, output: int, cached_read: int = 0, cached_write: int = 0) -> float:
        """Return what so many tokens cost; `PriceTable.cost` describes them."""
        plain = max(0, input - cached_read - cached_write)
        total = plain * self.input + output * self.output
        total += cached_read * self.cached_read + cached_write * self.cached_write
        return total / _MILLION


@attrs.frozen(eq=False)
class _Row:
    models: re.Pattern[str]
    providers: re.Pattern[str]
    price: Price


def _find(rows: Iterable[_Row], provider: str, model: str) -> Price | None:
    for row in rows:
        if row.models.fullmatch(model) and row.providers.fullmatch(provider):
            return row.price
    return None


@attrs.frozen(eq=False)
class PriceTable:
    """The prices of models; made by `parse_prices`."""

    currency: str
    _rows: tuple[_Row, ...]
    unknown: Price
    """Of a model that no row is for."""
    # Names come from requests: so many of them are remembered, and no more.
    _cached: Callable[[str, str], Price | None] = attrs.field(
        default=attrs.Factory(
            lambda self: lru_cache(maxsize=1000)(partial(_find, self._rows)), takes_self=True
        ),
        init=False,
        repr=False,
    )

    def price_of(self, provider: str, model: str) -> Price:
        """Return what a model costs, for budgets and for reports.

        Args:
            provider: The name of the provider.
            model: The model that answered, else the one that was asked for; "" if unknown.
        """
        return self._cached(provider, model) or self.unknown

    def cost(
        self,
        provider: str,
        model: str,
        input: int,
        output: int,
        cached_read: int = 0,
        cached_write: int = 0,
    ) -> float:
        """Return what so many tokens cost.

        Args:
            provider: As for `price_of`.
            model: As for `price_of`.
            input: Tokens of the whole input.
            output: Tokens of the whole output.
            cached_read: Part of the input that was read from a cache.
            cached_write: Part of the input that was written to one.
        """
        price = self.price_of(provider, model)
        return price.of(input, output, cached_read, cached_write)


def parse_prices(text: str) -> PriceTable:
    """Read a price table.

    Args:
        text: TOML: ``currency``, and ``[[models]]`` with ``model`` (a pattern), ``input`` and
            ``output`` (of a million tokens), and optionally ``cached_read``, ``cached_write`` and
            ``provider`` (a pattern). The first row that fits counts. ``[unknown]`` has the prices
            of other models; without it they cost as much as the dearest row.

    Raises:
        PriceTableError: It cannot be used; the text has all that is wrong.
    """
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PriceTableError(f"is not TOML: {error}") from None
    rows = data.get("models")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise PriceTableError("has no [[models]]")
    unknown = data.get("unknown")
    problems = list(_find_problems(data, rows, unknown))
    if problems:
        raise PriceTableError("; ".join(problems))
    made = tuple(_row(row) for row in rows)
    dearest = _dearest(row.price for row in made)
    currency = data.get("currency", "USD")
    return PriceTable(currency, made, dearest if unknown is None else _price(unknown))


def _find_problems(
    data: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], unknown: Any
) -> Iterator[str]:
    yield from _unknown_fields(data, _TOP_FIELDS, "")
    currency = data.get("currency", "USD")
    if not isinstance(currency, str) or not currency or not currency.isprintable():
        yield "currency: is not a name"
    for number, row in enumerate(rows, start=1):
        where = f"[[models]] row {number}: "
        yield from _unknown_fields(row, _ROW_FIELDS, where)
        for name, pattern in {"model": row.get("model"), "provider": _provider(row)}.items():
            if not isinstance(pattern, str) or not pattern:
                yield f"{where}{name}: {_is_not(row, name, 'a pattern')}"
        yield from _price_problems(row, where)
    if unknown is None:
        return
    if not isinstance(unknown, dict):
        yield "unknown: is not a table"
        return
    yield from _unknown_fields(unknown, set(_PRICES), "[unknown]: ")
    yield from _price_problems(unknown, "[unknown]: ")


def _unknown_fields(row: Mapping[str, object], known: set[str], where: str) -> Iterator[str]:
    for name in row:
        if name not in known:
            yield f"{where}{name}: is not one of {', '.join(sorted(known))}"


def _price_problems(row: Mapping[str, Any], where: str) -> Iterator[str]:
    for name in _PRICES:
        price = row.get(name, 0 if name in _OPTIONAL_PRICES else None)
        number = isinstance(price, int | float) and not isinstance(price, bool)
        if not number or not math.isfinite(price) or price < 0:
            yield f"{where}{name}: {_is_not(row, name, 'a number, 0 or more')}"


def _is_not(row: Mapping[str, Any], name: str, wanted: str) -> str:
    return f"is not {wanted}" if name in row else "is missing"


def _provider(row: Mapping[str, Any]) -> Any:
    return row.get("provider", "*")


def _row(row: Mapping[str, Any]) -> _Row:
    return _Row(compile_patterns([row["model"]]), compile_patterns([_provider(row)]), _price(row))


def _price(row: Mapping[str, Any]) -> Price:
    prices = {name: float(row.get(name, row["input"])) for name in _PRICES}
    return Price(**prices)


def _dearest(prices: Iterable[Price]) -> Price:
    known = list(prices)
    return Price(*(max(getattr(price, name) for price in known) for name in _PRICES))
