"""What the tests of limits share: a try, and a delivery that has begun."""

from __future__ import annotations

from streamwork.errors import StoreError


def tried(act):
    """Do it, and answer whether Redis took it."""
    try:
        act()
    except StoreError:
        return False
    return True


def begun(flow, *limits):
    """Send one and begin it; returns its delivery."""
    flow.send(*limits)
    (delivery,) = flow.read()
    assert flow.begin(delivery) == [1]
    return delivery
