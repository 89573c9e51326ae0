"""Dead letters of real workers through an app: sync and async calls see and do the same."""

from __future__ import annotations

import asyncio

import pytest

from streamwork import (
    ArgumentError,
    ConfigError,
    DeadDone,
    DeadLetterRefused,
    QueueNotFound,
    State,
    TaskFailed,
    UseAsync,
    WhereError,
)
from streamwork.ids import new_task_id
from tests.apps import faults
from tests.helpers import wait_until


@pytest.fixture
def dead(start, send, notes, app):
    """Handles of three messages that have died of their five attempts."""
    start()
    handles = [send(faults.hold, notes.path, text) for text in ("one", "two", "three")]
    notes.until(3)
    notes.go(how="raise")
    for handle in handles:
        with pytest.raises(TaskFailed):
            handle.result(timeout=30)
    wait_until(lambda: len(list(app.dead())) == 3, "three dead letters")
    return handles


def test_both_drivers_tell_the_same(dead, app):
    found = list(app.dead(task=faults.hold, where="text != 'two'", reason="failed"))
    assert {letter.id for letter in found} == {dead[0].id, dead[2].id}
    assert all(letter.traceback and letter.error_type == "ValueError" and letter.attempt == 5 for letter in found)

    async def main():
        for call in (app.dead, app.retry_dead, app.purge_dead, lambda: app.edit_dead("x", {"text": "y"})):
            with pytest.raises(UseAsync):
                call()
        try:
            return [letter async for letter in app.adead(where="text != 'two'")], await app.aretry_dead(dry_run=True)
        finally:
            await app.connection.aclose()

    assert asyncio.run(main()) == (found, DeadDone(3, {}))
    assert app.retry_dead(dry_run=True, limit=2) == DeadDone(2, {})
    assert len(list(app.dead())) == 3


def test_a_retry_gives_the_same_handle_another_result(dead, app, notes):
    notes.go()
    assert app.retry_dead(id=dead[0].id) == DeadDone(1, {})
    for handle in (dead[0], app.handle(dead[0].id)):
        handle.result(timeout=30)
        assert handle.state() == State.SUCCEEDED

    async def main():
        try:
            done = await app.aretry_dead(where="text == 'two'")
            return done, await app.apurge_dead(where="text == 'three'")
        finally:
            await app.connection.aclose()

    assert asyncio.run(main()) == (DeadDone(1, {}), DeadDone(1, {}))
    app.handle(dead[1].id).result(timeout=30)
    assert [record.state for record in app.history(id=dead[2].id)][-1] == "purged"
    assert list(app.dead()) == []


def test_an_edit_is_checked_and_what_runs_then_has_the_new_arguments(dead, app, notes):
    notes.go()
    with pytest.raises(ArgumentError, match="colour"):
        app.edit_dead(dead[0].id, {"colour": "red"})
    with pytest.raises(DeadLetterRefused, match="there is no dead letter"):
        app.edit_dead(new_task_id(), {"text": "x"})
    letter = app.edit_dead(dead[0].id, {"text": "other"})
    assert letter.args[1] == "other"
    app.retry_dead(id=[dead[0].id])
    wait_until(lambda: notes.runs("other"), "it runs with them")

    async def main():
        try:
            return await app.aedit_dead(dead[1].id, {"text": "third"})
        finally:
            await app.connection.aclose()

    assert asyncio.run(main()).args[1] == "third"
    app.purge_dead()


def test_what_is_wrong_is_refused_before_anything_is_read(app):
    for asked, error in (
        ({"reason": "tired"}, ConfigError), ({"limit": 0}, ConfigError), ({"id": "milk"}, ConfigError),
        ({"id": []}, ConfigError), ({"where": "a ="}, WhereError), ({"since": 1, "until": 2}, ConfigError),
        ({"task": 7}, ConfigError), ({"state": "failed"}, ConfigError),
    ):  # fmt: skip
        for call in (app.dead, app.retry_dead, app.purge_dead):
            with pytest.raises(error):
                call(**asked)
    with pytest.raises(QueueNotFound):
        app.retry_dead("nowhere")
    with pytest.raises(ConfigError, match="give arguments by name"):
        app.edit_dead(new_task_id(), {})
