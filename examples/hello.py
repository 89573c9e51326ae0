"""Hello: send typed calls, get typed results.

In this folder:

    streamwork worker --tags backend        in one terminal
    python hello.py                         in another

The tasks are in `tasks.py`.
"""

from __future__ import annotations

from pathlib import Path

from tasks import app, greet, measure, restock

from streamwork import ArgumentError

if __name__ == "__main__":
    print(greet.enqueue("world", loudly=True).result(timeout=20))

    size = measure.enqueue(Path(__file__)).result(timeout=20)
    print(f"{size.path.name} has {size.lines} lines")

    handles = app.enqueue_many(restock.call(order_id) for order_id in range(1, 4))
    for handle in handles:
        print(handle.result(timeout=20))

    try:
        measure.enqueue(42)  # a type checker refuses this too
    except ArgumentError as error:
        print(f"refused before anything was sent: {error}")
