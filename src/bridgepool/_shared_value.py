"""What a flight hands to those who wait for it: one value, made once for all of them."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

import attrs
import outcome

T = TypeVar("T")
R = TypeVar("R")


@attrs.define(eq=False)
class SharedValue(outcome.Outcome[T]):
    """An `outcome.Value` that any number of tasks may be woken with.

    `outcome.Value` can be unwrapped once, so each task would need one of its own; making that
    takes longer than anything else in waking a task.
    """

    value: T

    def unwrap(self) -> T:
        return self.value

    def send(self, gen: Generator[R, T, Any]) -> R:
        return gen.send(self.value)

    async def asend(self, agen: AsyncGenerator[R, T]) -> R:
        return await agen.asend(self.value)
