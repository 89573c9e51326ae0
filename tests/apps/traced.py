"""An app whose bodies send children, begin spans of their own and log; for tests of telemetry."""

from __future__ import annotations

import asyncio
import logging
import os

from opentelemetry import trace

from streamwork import RetryLater, Skip, Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-traced"))
logger = logging.getLogger("traced")

if os.environ.get("TEST_OWN_PROVIDER"):
    # What a user does who had OpenTelemetry before.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = TracerProvider(resource=Resource.create({"service.name": "mine"}))
    own.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=os.environ["TEST_OWN_PROVIDER"] + "/v1/traces"))
    )
    trace.set_tracer_provider(own)


@app.task
async def leaf(n: int) -> int:
    return n


@app.task
async def in_loop(n: int) -> list[str]:
    with trace.get_tracer("mine").start_as_current_span("inner"):
        logger.info("it goes on", extra={"n": n})
        return [handle.id for handle in await asyncio.gather(leaf.aenqueue(n), leaf.aenqueue(n + 1))]


@app.task
def in_thread(n: int) -> list[str]:
    logger.info("it goes on", extra={"n": n})
    return [leaf.enqueue(n).id, *(handle.id for handle in app.enqueue_many([leaf.call(n)]))]


@app.task(executor="process")
def in_process(n: int) -> list[str]:
    return [leaf.enqueue(n).id]


@app.task(retry=None)
async def end(how: str) -> None:
    if how == "skip":
        raise Skip("no need")
    if how == "fail":
        raise ValueError("order 7")


@app.task
async def twice(where: str) -> None:
    path = f"{where}.seen"
    if not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            raise RetryLater(0.05)
