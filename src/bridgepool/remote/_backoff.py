"""How long to wait before the next try: full jitter, capped."""

import random
from collections.abc import Callable, Iterator


def full_jitter(
    initial: float, cap: float, rng: Callable[[], float] = random.random
) -> Iterator[float]:
    """Yield a random part of `initial`, of twice that, and so on, up to parts of `cap`.

    Also at the cap each wait is random, so that many who failed together stay spread out.
    """
    longest = min(initial, cap)
    while True:
        yield rng() * longest
        longest = min(longest * 2, cap)
