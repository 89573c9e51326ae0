"""Where a message says it comes from."""

from __future__ import annotations

import pytest

from streamwork.wire.message import NO_OPTIONS, Options
from streamwork.wire.origin import origin_of, repeated, stamped

TRACE = "ab" * 16
HERE = {"parent": "1" * 32, "traceparent": f"00-{TRACE}-{'cd' * 8}-01"}


def test_what_is_stamped_is_read_again():
    assert origin_of(stamped(NO_OPTIONS, HERE)) == ("1" * 32, TRACE)
    assert NO_OPTIONS.headers is None


def test_headers_that_a_message_has_stay():
    made = stamped(Options(timeout_ms=5, headers={"parent": "mine", "tenant": "3"}), HERE)
    assert made.headers == {"parent": "mine", "tenant": "3", "traceparent": HERE["traceparent"]}
    assert made.timeout_ms == 5


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        (None, None),
        ({"parent": "p", "tracestate": "x"}, None),
        ({**HERE, "tenant": "3"}, {"tenant": "3", "tracelink": HERE["traceparent"]}),
    ],
)
def test_a_message_that_repeats_another_has_a_link_and_another_origin(headers, kept):
    assert repeated(headers) == kept
