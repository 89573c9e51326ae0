"""Fixtures of the guards' tests: those of tests/redis and tests/system, by the floor that a scenario needs."""

from __future__ import annotations

from tests.redis.conftest import own, own_keys, proxy, server, start_server

__all__ = ["own", "own_keys", "proxy", "server", "start_server"]
