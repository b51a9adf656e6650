"""Packages whose names are imported on first use."""

import importlib

import pytest


@pytest.mark.parametrize("package", ["bridgepool.gateway", "bridgepool.gateway.control"])
def test_each_public_name_is_found_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense
