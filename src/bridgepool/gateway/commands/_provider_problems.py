"""What a change of providers leaves behind that the store accepts and requests may not like."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import ParamSpec, TypeVar

from bridgepool.gateway.commands._connecting import Where, administer
from bridgepool.gateway.control._records import ProviderView
from bridgepool.gateway.control.operations import Admin, Operation
from bridgepool.gateway.control.operations._providers import list_providers
from bridgepool.gateway.providers._fallbacks import unusable_fallbacks

P = ParamSpec("P")
T = TypeVar("T")


def change_providers(
    options: Where, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Carry out a change; then warn of the problems that providers did not have before it."""

    async def work(admin: Admin) -> tuple[T, list[str]]:
        before = set(_problems((await admin.do(list_providers)).providers))
        changed = await admin.do(operation, *args, **kwargs)
        after = (await admin.do(list_providers)).providers
        return changed, [problem for problem in _problems(after) if problem not in before]

    changed, problems = administer(options, work)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    return changed


def _problems(providers: Iterable[ProviderView]) -> Iterator[str]:
    known = tuple(providers)
    for one in known:
        if not (one.keys or one.key_env or one.client_keys or one.problem):
            yield (
                f"{one.name} has no key: requests are sent to it without one; --keys-stdin, "
                "--key-env or --client-keys give it one"
            )
    for found in unusable_fallbacks(known):
        yield f"{found.provider}: its fallback {found.fallback} cannot be used: {found.reason}"
