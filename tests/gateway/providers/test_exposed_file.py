"""A provider file that other users can change is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.providers.provider_files import opened

WARNING = "provider file can be changed by others"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage() == WARNING]


def permit(file: Path, mode: int, directory: int) -> None:
    file.chmod(mode)
    file.parent.chmod(directory)


@pytest.mark.parametrize(("mode", "directory"), [(0o646, 0o700), (0o600, 0o777)])
async def test_a_file_that_others_can_write_or_replace_is_warned_of_once(
    file: Path, mode: int, directory: int, caplog: pytest.LogCaptureFixture
) -> None:
    permit(file, mode, directory)
    async with opened(file) as source:
        await source.reload()
        assert len(warnings(caplog)) == 1
        permit(file, 0o600, 0o700)
        await source.reload()
        permit(file, 0o646, 0o700)
        await source.reload()
        assert len(warnings(caplog)) == 2


@pytest.mark.parametrize(("mode", "directory"), [(0o644, 0o755), (0o600, 0o1777)])
async def test_a_file_that_others_can_only_read_is_not(
    file: Path, mode: int, directory: int, caplog: pytest.LogCaptureFixture
) -> None:
    permit(file, mode, directory)
    async with opened(file):
        assert warnings(caplog) == []
