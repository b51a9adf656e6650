import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from bridgepool import Secret
from bridgepool.gateway.providers import Provider

TEXT = "sk-live-hunter2"


def test_a_secret_is_shown_by_reveal_and_by_nothing_else() -> None:
    secret = Secret(TEXT)
    assert secret.reveal() == TEXT
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>30}",
        f"{secret:>30}",
        "%s %r" % (secret, secret),  # noqa: UP031 -- the old formatting is what is tested
        "{} {!r}".format(secret, secret),  # noqa: UP032 -- likewise
        repr([secret]),
        repr({secret: secret}),
    ]
    assert not any("hunter2" in text for text in shown)
    assert "Secret(***)" in shown[4]


def test_an_attrs_class_that_holds_a_secret_does_not_show_it() -> None:
    provider = Provider(name="a", type="openai", base_url="https://a.example/v1", keys=[TEXT])
    assert "hunter2" not in repr(provider)
    assert "hunter2" not in repr(attrs.asdict(provider))


def test_a_log_record_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("key %s of %r", Secret(TEXT), [Secret(TEXT)])
    assert "hunter2" not in caplog.text


def test_a_traceback_with_local_variables_does_not_show_it() -> None:
    def fail(secret: Secret) -> None:
        raise ValueError(secret)

    try:
        fail(Secret(TEXT))
    except ValueError as error:
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
    lines = [line for line in shown.splitlines() if "fail(Secret(" not in line]
    assert "Secret(***)" in shown
    assert not any("hunter2" in line for line in lines)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(Secret(TEXT), protocol)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(TypeError):
        pickle.dumps({"key": Secret(TEXT)}, protocol)


def test_a_secret_is_no_json_and_no_sequence() -> None:
    uses: list[Callable[[Any], object]] = [json.dumps, len, list, bytes, vars]
    for use in uses:
        with pytest.raises(TypeError) as caught:
            use(Secret(TEXT))
        assert "hunter2" not in str(caught.value)


def test_a_copy_is_the_same_object() -> None:
    secret = Secret(TEXT)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_secrets_are_equal_by_text_and_hashable() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("\udc80é") == Secret("\udc80é")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_secret_cannot_be_changed() -> None:
    secret = Secret(TEXT)
    with pytest.raises(AttributeError):
        secret._value = "other"
    with pytest.raises(AttributeError):
        del secret._value
    with pytest.raises(AttributeError):
        secret.other = "x"
    assert secret.reveal() == TEXT


def test_what_is_no_text_or_empty_is_no_secret_and_is_not_repeated() -> None:
    with pytest.raises(TypeError) as caught:
        Secret(b"hunter2")  # type: ignore[arg-type]  # that is the point
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValueError, match="not empty"):
        Secret("")
