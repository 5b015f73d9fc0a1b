"""The back-off policy and the reading of `Retry-After`."""

import doctest
from random import Random

import pytest

from gateway.dispatch import retry
from gateway.dispatch.retry import CAP_SECONDS, parse_retry_after, retry_delay


def test_docstring_examples_hold() -> None:
    """The examples a reader of the module sees are what it does."""
    assert doctest.testmod(retry).failed == 0
    assert doctest.testmod(retry).attempted > 0


def test_jitter_is_full_and_capped() -> None:
    """Delays spread over the whole range below the doubling ceiling and never pass ten minutes."""
    random = Random(1)
    for failures, ceiling in ((1, 1.0), (2, 2.0), (4, 8.0), (50, CAP_SECONDS)):
        delays = [retry_delay(failures, None, random) for _ in range(500)]
        assert 0 <= min(delays) < ceiling * 0.1
        assert ceiling * 0.9 < max(delays) <= ceiling


def test_retry_after_only_moves_later() -> None:
    """A target's Retry-After is a lower bound of every delay, and doesn't shorten a longer back-off."""
    random = Random(2)
    delays = [retry_delay(8, 30.0, random) for _ in range(300)]
    assert min(delays) == 30.0
    assert max(delays) > 60.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        ("99999999999999999999999999", 86_400.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thursday, 01-Jan-70 00:02:00 GMT", 20.0),
        ("Thu Jan  1 00:02:00 1970", 20.0),
        ("Wed, 31 Dec 1969 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("Fri, 99 Foo 9999 23:59:59 GMT", None),
    ],
)
def test_retry_after_header(value: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 are read, bounded to a day; nonsense counts as absent."""
    assert parse_retry_after(value, 100.0) == seconds
