"""Retries: what fails may succeed later, and what cannot succeed is told apart.

In this folder:

    streamwork worker --app retries         in one terminal
    python retries.py                       in another

Attempts wait in Redis, not in the worker: stop the worker between two of them and start it again.
"""

from __future__ import annotations

from streamwork import Context, Reject, Retry, RetryLater, Streamwork, TaskFailed

app = Streamwork("retries")


@app.task(retry=Retry(max_attempts=4, base=0.2))
async def call_flaky_service(ctx: Context, answers_at: int) -> str:
    if ctx.attempt < answers_at:
        raise ConnectionError(f"attempt {ctx.attempt}: no answer")
    return f"answered at attempt {ctx.attempt}"


@app.task(retry=[Retry(max_attempts=5, on=(TimeoutError,), base=0.1), Retry(max_attempts=1)])
async def parse(text: str) -> int:
    """Only timeouts run again: a ValueError will not go away."""
    return int(text)


@app.task
async def charge(ctx: Context, card: str) -> str:
    if card == "stolen":
        raise Reject("the card is stolen")  # to the dead letters, whatever the policy says
    if ctx.attempt == 1:
        raise RetryLater(0.5, "the bank asks to come back")
    return f"charged {card}"


if __name__ == "__main__":
    print("flaky:", call_flaky_service.enqueue(3).result(timeout=30))
    print("later:", charge.enqueue("visa").result(timeout=30))
    for handle in (call_flaky_service.enqueue(99), parse.enqueue("seven"), charge.enqueue("stolen")):
        try:
            handle.result(timeout=30)
        except TaskFailed as error:
            print(f"{error.state}: {error}")
