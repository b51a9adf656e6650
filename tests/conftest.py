"""For all tests: which of them run, and what is generated.

That is the same in each run of CI, so that it tells of changes. Elsewhere every run draws anew,
and finds what the others have not. How long it takes is no fault anywhere: machines are busy.
"""

import gc
import os

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

_OWN_COMMANDS = ("soak", "clients", "monitoring")  # markers
settings.register_profile(
    "bridgepool",
    derandomize=bool(os.environ.get("CI")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bridgepool")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has a command of its own, unless `-m` says what to run."""
    if config.option.markexpr:
        return
    others = [item for item in items if any(map(item.get_closest_marker, _OWN_COMMANDS))]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection: the SDKs alone are half a million objects.

    Whoever looks for objects of a test process has to call `gc.unfreeze` before.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Save what a test process has covered: one that takes over 10 s to exit is killed."""
    measured = Coverage.current()
    if measured is not None and "PYTEST_XDIST_WORKER" in os.environ:
        measured.save()
