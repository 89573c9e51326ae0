"""Each statement that ends in `# wrong` must be refused by mypy --strict and by pyright, nothing else; never run."""

from __future__ import annotations

from streamwork import Context, Handle, Retry, Streamwork
from streamwork.task import AsyncTask

app = Streamwork("shop")


@app.task(queue="mail")
async def send_receipt(order_id: int, to: str) -> str:
    return to


@app.task
def resize(path: str, width: int = 640) -> int:
    return width


@app.task
async def with_context(ctx: Context, order_id: int) -> float:
    return float(order_id)


@app.task
def takes_an_object(value: object, times: int) -> int:
    return times


@app.on_dead  # wrong
def tell(letter: int) -> None:
    pass


def wrong_dead_letters() -> None:
    app.dead(state="failed")  # wrong
    app.retry_dead(dry_run="yes")  # wrong


def wrong_arguments() -> None:
    send_receipt.enqueue("7", "a@b.c")  # wrong
    send_receipt.enqueue(7)  # wrong
    send_receipt.enqueue(7, "a@b.c", 3)  # wrong
    send_receipt.enqueue(7, too="a@b.c")  # wrong
    send_receipt.delay(7, 8)  # wrong
    send_receipt.apply_async((7, "a@b.c"))  # wrong
    send_receipt.call(7, None)  # wrong
    resize.enqueue(path="x", width="wide")  # wrong
    resize.enqueue()  # wrong
    takes_an_object.enqueue(3)  # wrong
    send_receipt.options(priority=1).enqueue("7", "a@b.c")  # wrong


def the_context_is_not_the_callers() -> None:
    with_context.enqueue(Context(), 7)  # wrong
    with_context.enqueue("7")  # wrong


def wrong_options() -> None:
    app.task(que="mail")  # wrong
    app.task(retry=3)  # wrong
    app.task(timeout="30")  # wrong
    app.task(executor="proces")  # wrong
    send_receipt.options(priority="high")  # wrong
    send_receipt.options(dealy=60)  # wrong
    send_receipt.options(name="other")  # wrong
    send_receipt.options(executor="process")  # wrong
    send_receipt.options(retry=[Retry()])  # wrong
    Retry(max_attempts="3")  # wrong
    Retry(on=[ValueError("x")])  # wrong
    Retry(base="1")  # wrong
    Streamwork()  # wrong


def wrong_results() -> None:
    a: Handle[int] = send_receipt.enqueue(7, "x")  # wrong
    b: int = send_receipt.enqueue(7, "x").result()  # wrong
    c: str = resize("x")  # wrong
    d: AsyncTask[[int], str] = send_receipt  # wrong
    send_receipt.enqueue(7, "x").result(timeout="10")  # wrong
    print(a, b, c, d)


async def wrong_in_async_code() -> None:
    a: str = send_receipt(7, "x")  # wrong
    b: int = await (await send_receipt.aenqueue(7, "x"))  # wrong
    c: str = await resize.aenqueue("x")  # wrong
    await resize("x")  # wrong
    await send_receipt.aenqueue("7", "x")  # wrong
    print(a, b, c)


def wrong_history() -> None:
    app.history(since="2h")  # wrong
    app.history("mail", staet="dead")  # wrong
    for one in app.history():
        print(one.task)  # wrong
