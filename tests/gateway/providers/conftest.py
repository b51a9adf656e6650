"""A provider file to edit."""

from pathlib import Path

import pytest

from tests.gateway.providers.provider_files import text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "providers.toml"
    file.write_text(text("one"))
    return file
