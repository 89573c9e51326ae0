"""Real workers tell of dead letters: functions of the app and a webhook."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.helpers import wait_until

HOOKS = """

@app.on_dead
def broken(letter):
    raise OSError("a hook is broken")


@app.on_dead
def note(letter):
    with open("sync.txt", "a") as file:
        file.write(f"{letter.id} {letter.task} {letter.reason} {letter.error} {letter.args}\\n")


@app.on_dead
async def anote(letter):
    await asyncio.sleep(0)
    again = await add.aenqueue(1, 2)
    with open("async.txt", "a") as file:
        file.write(f"{letter.id} {again.id}\\n")
"""


@pytest.fixture
def webhook():
    """A server that refuses the first post and takes the rest; answers (url, bodies)."""
    bodies, refused = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not refused:
                refused.append(body)
                self.send_error(500)
                return
            bodies.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook?token=secret", bodies
        server.shutdown()
        thread.join()


def test_functions_and_webhook_hear_of_each_dead_letter(project, worker, webhook):
    url, bodies = webhook
    path = project.folder / "tasks.py"
    text = path.read_text().replace(
        "app = Streamwork(", f"app = Streamwork(settings={{'dead_webhook': {url!r}}}, name="
    )
    path.write_text(text + HOOKS)
    running = worker()
    ids = [project.run("enqueue", "boom", word).out.strip() for word in ("milk", "tea")]
    project.run("enqueue", "add", "1", "2", "--wait")

    def read(name):
        file = project.folder / name
        return file.read_text().splitlines() if file.exists() else []

    wait_until(lambda: len(read("sync.txt")) == len(read("async.txt")) == len(bodies) == 2, "all to be told", 30)
    assert sorted(read("sync.txt")) == sorted(
        f"{task_id} tasks.boom failed no {word} ['{word}']" for task_id, word in zip(ids, ("milk", "tea"), strict=True)
    )
    for line in read("async.txt"):
        dead_id, sent_id = line.split()
        assert dead_id in ids
        assert project.run("tasks", "show", sent_id).status == 0
    assert sorted(one["id"] for one in bodies) == sorted(ids)
    assert {(one["event"], one["task"], one["reason"], one["queue"]) for one in bodies} == {
        ("dead", "tasks.boom", "failed", "default")
    }
    assert all("ValueError: no" in one["traceback"] and "args" not in one for one in bodies)
    wait_until(lambda: running.text().count("a function of on_dead raised") == 2, "the broken one to be logged")
    assert "token=secret" not in running.text()
