"""Import the public names of a package on first use."""

import importlib
from collections.abc import Callable, Collection


def lazy_names(
    package: str, names: Collection[str], modules: Collection[str]
) -> Callable[[str], object]:
    """Make the `__getattr__` of a package whose names are imported when they are first used.

    Args:
        package: Its `__name__`.
        names: Its `__all__`.
        modules: Where the names are, relative to the package.
    """

    def find(name: str) -> object:
        if name in names:
            for module in modules:
                found = importlib.import_module(f"{package}.{module}")
                if hasattr(found, name):
                    return getattr(found, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
