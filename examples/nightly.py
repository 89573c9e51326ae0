"""Nightly: tasks by the clock. Any worker sends each occurrence, once, however many there are.

In this folder:

    streamwork worker --app nightly         in one terminal
    python nightly.py                       in another

`streamwork schedules list` shows what comes when; `streamwork schedules run-now clean` does not wait for the night.
"""

from __future__ import annotations

import time
from pathlib import Path

from streamwork import Context, Streamwork

app = Streamwork("nightly")
BEATS = Path("beats.txt")


@app.cron("30 2 * * *", tz="Europe/Paris", name="clean", args=(30,), overlap="skip")
@app.task(timeout=3600)
def clean(days: int) -> str:
    """At half past two in Paris, in summer and in winter; if nobody was there then, when somebody is again."""
    return f"nothing is older than {days} days"


@app.every(1)
@app.task
def beat(ctx: Context) -> None:
    with BEATS.open("a") as file:
        file.write(f"{ctx.scheduled_at:%H:%M:%S}\n")


def three_beats() -> list[str]:
    while not BEATS.exists() or len(lines := BEATS.read_text().splitlines()) < 3:
        time.sleep(0.1)
    return lines[:3]


if __name__ == "__main__":
    BEATS.unlink(missing_ok=True)
    for at in three_beats():
        print(f"beat of {at}")

    for one in sorted(app.schedules.list(), key=lambda one: one.name):
        print(f"{one.name}: {one.when} {one.tz}".rstrip())

    if task_id := app.schedules.run_now("clean"):  # None where its last run has not ended
        print(clean.handle(task_id).result(timeout=20))
