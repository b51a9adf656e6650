"""Plain fields: what is read, what is refused, and what bounds say."""

from datetime import UTC, datetime

import attrs
import pytest

from bridgepool.gateway.control.operations._requests import plain_schema
from bridgepool.gateway.providers._plain_fields import about, plain_fields


@attrs.frozen(kw_only=True)
class _Row:
    words: tuple[str, ...] | None = attrs.field(
        default=None, metadata=about("Words.", max_length=5, choices=("one", "two"))
    )
    count: int = attrs.field(default=3, metadata=about("A count.", minimum=1, maximum=9))
    share: float | None = attrs.field(default=None, metadata=about("A share.", minimum=0))
    until: str | None = attrs.field(default=None, metadata=about("A time.", is_time=True))


FIELDS = plain_fields(_Row)


@pytest.mark.parametrize(
    ("name", "written", "used"),
    [
        ("words", ["one", "two"], ("one", "two")),
        ("words", [], ()),
        ("count", 3, 3),
        ("share", 3, 3),
        ("until", "2030-01-31T02:00:00+02:00", "2030-01-31T00:00:00Z"),
        ("until", datetime(2030, 1, 31, tzinfo=UTC), "2030-01-31T00:00:00Z"),
    ],
)
def test_a_value_is_read_as_it_is_used(name: str, written: object, used: object) -> None:
    assert FIELDS[name].read(written) == used
    assert FIELDS[name].problem(used) is None


@pytest.mark.parametrize(
    ("name", "written", "problem"),
    [
        ("words", "one", "is not a list of strings"),
        ("words", ["one", 2], "is not a list of strings"),
        ("words", ["one\n"], "has a character that cannot be printed"),
        ("count", True, "is not a whole number"),
        ("count", None, "is not a whole number or null"),
        ("share", "3", "is not a number or null"),
        ("until", 7, "is not a time with its zone, such as 2030-01-31T00:00:00Z or null"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, written: object, problem: str) -> None:
    expected = problem if FIELDS[name].optional else problem.removesuffix(" or null")
    with pytest.raises(ValueError, match=f"^{expected}$"):
        FIELDS[name].read(written, null="null" in problem)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("words", ("one", "three"), "is not one of one, two"),
        ("count", 0, "is not from 1 to 9"),
        ("count", 10, "is not from 1 to 9"),
        ("share", -0.5, "is less than 0"),
        ("share", float("nan"), "is less than 0"),
        ("until", "2030-01-31", "is not a time with its zone, such as 2030-01-31T00:00:00Z"),
        ("until", "tomorrow", "is not a time with its zone, such as 2030-01-31T00:00:00Z"),
    ],
)
def test_a_value_beyond_its_bounds_is_told(name: str, value: object, problem: str) -> None:
    assert FIELDS[name].problem(value) == problem


def test_a_field_is_described_with_its_bounds() -> None:
    assert plain_schema(FIELDS["count"]) == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "description": "A count.",
    }
    assert plain_schema(FIELDS["words"])["anyOf"] == [
        {"type": "array", "items": {"type": "string", "maxLength": 5, "enum": ["one", "two"]}},
        {"type": "null"},
    ]
    assert {"type": "string", "format": "date-time"} in plain_schema(FIELDS["until"])["anyOf"]  # type: ignore[operator]  # a list
