"""The keys that the store encrypts with: found, told apart, changed, never shown."""

import logging
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridgepool import Secret
from bridgepool.gateway.control._encryption import (
    KEYS_VARIABLE,
    EncryptionKeys,
    add_encryption_key,
    drop_old_encryption_keys,
    find_encryption_keys,
    generate_encryption_key,
    parse_encryption_keys,
    promote_encryption_key,
    read_encryption_keys,
)
from bridgepool.gateway.control._errors import EncryptionError


def test_what_was_encrypted_is_decrypted_and_cannot_be_read() -> None:
    keys = EncryptionKeys([generate_encryption_key()])
    token = keys.encrypt(b"sk-secret")
    assert b"sk-secret" not in token
    assert token.isascii()
    assert keys.decrypt(token) == b"sk-secret"


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, new = generate_encryption_key(), generate_encryption_key()
    before, both, after = EncryptionKeys([old]), EncryptionKeys([new, old]), EncryptionKeys([new])
    token = before.encrypt(b"x")
    assert both.decrypt(token) == b"x"
    assert both.current == after.current != before.current
    rotated = both.encrypt(both.decrypt(token))
    assert after.decrypt(rotated) == b"x"
    with pytest.raises(EncryptionError):
        before.decrypt(rotated)


def test_a_wrong_key_and_a_changed_text_are_said_with_what_to_do() -> None:
    keys, other = (EncryptionKeys([generate_encryption_key()]) for _ in range(2))
    token = bytearray(keys.encrypt(b"x"))
    with pytest.raises(EncryptionError, match="add the key") as caught:
        other.decrypt(bytes(token))
    assert other.current in str(caught.value)
    token[20] ^= 1
    with pytest.raises(EncryptionError, match="damaged"):
        keys.decrypt(bytes(token))


def test_neither_keys_nor_errors_show_a_key(tmp_path: Path) -> None:
    key = generate_encryption_key()
    keys = EncryptionKeys([key])
    assert key.reveal()[:6] not in repr(keys) + str(keys.names)
    broken = key.reveal()[:-3]
    for text in (broken, f"{key.reveal()} {broken}", broken + "\N{SNOWMAN}"):
        with pytest.raises(EncryptionError) as caught:
            parse_encryption_keys(text)
        assert broken[:6] not in "".join(traceback.format_exception(caught.value))
    (tmp_path / "k").write_text(broken)
    with pytest.raises(EncryptionError, match="k: encryption key 1 is not") as caught:
        read_encryption_keys(tmp_path / "k")
    assert broken[:6] not in "".join(traceback.format_exception(caught.value))


def test_a_new_store_in_a_file_gets_a_key_file_that_only_its_owner_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.db"
    keys = find_encryption_keys(str(store), environ={})
    made = tmp_path / "store.db.key"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert [getattr(record, "file", None) for record in caplog.records] == [str(made)]
    assert made.read_text().strip() not in caplog.text
    assert find_encryption_keys(f"sqlite:{store}", environ={}).names == keys.names
    assert [path.name for path in tmp_path.iterdir()] == ["store.db.key"]


def test_of_processes_that_start_together_one_makes_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda _: find_encryption_keys(str(tmp_path / "s.db"), environ={}).current, range(8)
            )
        )
    assert len(set(found)) == 1


def test_a_store_that_has_lost_its_key_gets_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"SQLite format 3\0")
    with pytest.raises(EncryptionError, match=r"missing: put the file .*s\.db\.key back"):
        find_encryption_keys(str(tmp_path / "s.db"), environ={})
    assert not (tmp_path / "s.db.key").exists()


def test_a_named_file_comes_before_the_environment_and_that_before_the_file_beside(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "s.db")
    first, second = generate_encryption_key(), generate_encryption_key()
    environ = {KEYS_VARIABLE: f"{first.reveal()}\n{second.reveal()}"}
    (tmp_path / "k").write_text(f"# the key of 2026\n\n{second.reveal()}  # newest\n")
    assert find_encryption_keys(url, environ=environ).keys == (first, second)
    assert find_encryption_keys(url, key_file=tmp_path / "k", environ=environ).keys == (second,)


def test_postgresql_has_no_file_beside_it_so_the_keys_must_be_given() -> None:
    url = Secret("postgresql://u:hunter2@host/db")
    with pytest.raises(EncryptionError, match=KEYS_VARIABLE) as caught:
        find_encryption_keys(url, environ={})
    assert "hunter2" not in str(caught.value)
    key = generate_encryption_key()
    assert find_encryption_keys(url, environ={KEYS_VARIABLE: key.reveal()}).keys == (key,)


def test_a_key_file_is_rotated_in_three_steps(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text(generate_encryption_key().reveal())
    old = read_encryption_keys(path)
    both = add_encryption_key(path)
    assert both.current == old.current
    promoted = promote_encryption_key(path)
    assert promoted.names == both.names[::-1]
    new = drop_old_encryption_keys(path)
    assert new.names == promoted.names[:1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["k"]


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(EncryptionError, match="there is no encryption key"):
        read_encryption_keys(tmp_path / "k")


def test_a_key_file_that_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(EncryptionError, match="No such file"):
        read_encryption_keys(tmp_path / "none")
    with pytest.raises(EncryptionError, match="cannot be written"):
        find_encryption_keys(str(tmp_path / "no folder" / "s.db"), environ={})


def test_a_key_file_that_everybody_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "k"
    path.write_text(generate_encryption_key().reveal())
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        read_encryption_keys(path)
    assert "chmod 600" in caplog.text
