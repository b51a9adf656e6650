"""Import the public names of a package on first use."""

import importlib
from collections.abc import Collection


def find_name(package: str, name: str, names: Collection[str], modules: Collection[str]) -> object:
    """Do the work of a package's `__getattr__`.

    Args:
        package: Its `__name__`.
        name: What is asked for.
        names: Its `__all__`.
        modules: Where the names are, relative to the package.

    Raises:
        AttributeError: It has no such name.
    """
    if name in names:
        found = (importlib.import_module(f"{package}.{module}") for module in modules)
        return next(getattr(module, name) for module in found if hasattr(module, name))
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
