"""Spans of real workers, received by a real OTLP receiver: one trace from who sends to who runs, in every executor."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamwork import Streamwork
from streamwork.handle import Call
from streamwork.telemetry import logs, setup
from streamwork.telemetry.tracing import Spans
from streamwork.wire.message import Options
from streamwork.wire.origin import TRACE_LINK
from tests.apps import basic, traced
from tests.helpers import wait_until
from tests.otlp import Receiver

LINKED = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def worker(start, receiver):
    """Start a worker whose spans come to the receiver, with variables by name."""

    def begin(**environ):
        variables = {"STREAMWORK_TELEMETRY_TRACES": "otlp", "STREAMWORK_TELEMETRY_OTLP_ENDPOINT": receiver.url}
        return start("tests.apps.traced:app", environ={**variables, **environ})

    return begin


@pytest.fixture
def sent(monkeypatch):
    """The spans of this process, which sends."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(setup, "_made", Spans(provider.get_tracer("test"), 1.0))
    monkeypatch.setattr(logs, "trace_of", None)
    return exporter.get_finished_spans


@pytest.fixture
def tracing_app(sent, namespace, redis_url):
    """An app of this process that has traces on."""
    with Streamwork(namespace, redis_url, {"telemetry.traces": "on"}) as app:
        yield app


def stop(worker):
    """End a worker in order, so that all it has to tell is told."""
    worker.signal()
    assert worker.process.wait(20) == 0, worker.text()


def processing(receiver):
    """Return the spans of runs by task id."""
    return {span.facts["messaging.message.id"]: span for span in receiver.spans if span.name == "process default"}


def sending(receiver):
    """Return the spans that sent one message, by its id."""
    return {span.facts.get("messaging.message.id"): span for span in receiver.spans if span.name == "send default"}


def test_one_trace_goes_from_the_sender_through_the_message_to_the_run(worker, receiver, tracing_app, sent, look):
    begun = worker()
    handle = tracing_app.call(traced.leaf.name, 7).enqueue()
    assert handle.result(timeout=10) == 7
    stop(begun)
    (producer,) = sent()
    run = processing(receiver)[handle.id]
    assert (producer.name, producer.kind.name, run.kind) == ("send default", "PRODUCER", Span.SPAN_KIND_CONSUMER)
    assert run.trace_id == f"{producer.context.trace_id:032x}"
    assert run.parent == f"{producer.context.span_id:016x}"
    assert dict(producer.attributes) == {
        "messaging.system": "streamwork", "messaging.destination.name": "default", "messaging.operation.name": "send",
        "messaging.operation.type": "send", "messaging.message.id": handle.id, "streamwork.task": traced.leaf.name,
    }  # fmt: skip
    (record,) = look().journal
    assert run.facts == {
        "messaging.system": "streamwork", "messaging.destination.name": "default",
        "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.message.id": handle.id,
        "messaging.client.id": record.consumer, "streamwork.task": traced.leaf.name, "streamwork.attempt": 1,
        "streamwork.outcome": "succeeded",
    }  # fmt: skip
    assert record.trace_id == run.trace_id


@pytest.mark.parametrize("task", [traced.in_loop, traced.in_thread, traced.in_process], ids=lambda task: task.name)
def test_what_a_body_sends_is_in_its_trace_whatever_runs_it(worker, receiver, send, look, task):
    begun = worker()
    handle = send(task, 7)
    children = handle.result(timeout=20)
    wait_until(lambda: look().backlog == 0, "the children have run")
    stop(begun)
    runs = processing(receiver)
    by_span = {span.span_id: span for span in receiver.spans}
    for child in children:
        above, chain = runs[child], []
        while above.parent:
            above = by_span[above.parent]
            chain.append(above.name.split()[0])
        assert above.span_id == runs[handle.id].span_id
        assert chain == (["send", "inner", "process"] if task is traced.in_loop else ["send", "process"])
    records = {record.id: record for record in look().journal}
    assert {records[child].parent for child in children} == {handle.id}
    assert {record.trace_id for record in records.values()} == {runs[handle.id].trace_id}


def test_a_log_line_says_in_which_span_it_was_written(worker, receiver, send):
    begun = worker(STREAMWORK_LOG_FORMAT="json")
    handles = [send(traced.in_loop, 7), send(traced.in_thread, 8)]
    for handle in handles:
        handle.result(timeout=10)
    stop(begun)
    lines = [json.loads(line) for line in begun.text().splitlines()]
    ids = {line["n"]: (line["trace_id"], line["span_id"]) for line in lines if line["message"] == "it goes on"}
    runs = processing(receiver)
    inner = next(span for span in receiver.spans if span.name == "inner")
    assert ids == {
        7: (inner.trace_id, inner.span_id), 8: (runs[handles[1].id].trace_id, runs[handles[1].id].span_id)
    }  # fmt: skip
    assert "trace_id" not in next(line for line in lines if line["message"] == "worker ready")


def test_how_a_run_ended_is_in_its_span(worker, receiver, send, tmp_path, look):
    begun = worker()
    failed, skipped = send(traced.end, "fail"), send(traced.end, "skip")
    again = send(traced.twice, str(tmp_path / "x"))
    again.result(timeout=10)
    wait_until(lambda: look().backlog == 0, "all ended")
    stop(begun)
    runs = processing(receiver)
    dead = runs[failed.id]
    assert (dead.facts["streamwork.outcome"], dead.facts["error.type"]) == ("dead", "ValueError")
    assert dead.status == Status.STATUS_CODE_ERROR
    assert [event["exception.message"] for event in dead.events] == ["order 7"]
    assert runs[skipped.id].facts["streamwork.outcome"] == "skipped"
    assert (runs[skipped.id].status, runs[skipped.id].events) == (Status.STATUS_CODE_UNSET, [])
    both = [span for span in receiver.spans if span.facts.get("messaging.message.id") == again.id]
    ends = [span for span in both if span.name == "process default"]
    assert sorted((span.facts["streamwork.attempt"], span.facts["streamwork.outcome"]) for span in ends) == [
        (1, "retried"), (2, "succeeded"),
    ]  # fmt: skip


def test_many_that_are_sent_at_once_have_one_span_and_are_its_children(worker, receiver, tracing_app, sent):
    begun = worker()
    handles = tracing_app.enqueue_many(tracing_app.call(traced.leaf.name, n) for n in range(5))
    assert [handle.result(timeout=10) for handle in handles] == list(range(5))
    stop(begun)
    (producer,) = sent()
    assert (producer.name, producer.attributes["messaging.batch.message_count"]) == ("send", 5)
    runs = processing(receiver)
    assert {runs[handle.id].parent for handle in handles} == {f"{producer.context.span_id:016x}"}


def test_a_message_that_repeats_one_begins_a_trace_that_links_to_the_other(worker, receiver, app, send):
    begun = worker()
    call = send.declared(traced.leaf).call(7)
    options = Options(replay_of="f" * 32, headers={TRACE_LINK: LINKED})
    packed = (call.args, call.kwargs)
    again = Call(app.sending, call.task_name, call.queue, call.lane, packed, options, call.read_result).enqueue()
    again.result(timeout=10)
    stop(begun)
    run = processing(receiver)[again.id]
    assert run.links == [("ab" * 16, "cd" * 8)]
    assert (run.parent, run.facts["streamwork.replay_of"]) == ("", "f" * 32)
    assert run.trace_id != "ab" * 16


def test_what_is_replayed_begins_a_trace_that_links_to_the_first_run(worker, receiver, app, tracing_app):
    begun = worker()
    first = tracing_app.call(traced.leaf.name, 7).enqueue()
    first.result(timeout=10)
    told = []
    app.replay("default", into="default", id=first.id, told=told.append)
    (again,) = [one.new_id for one in told]
    wait_until(lambda: again in processing(receiver), "the second run", 10)
    stop(begun)
    runs = processing(receiver)
    assert [link[0] for link in runs[again].links] == [runs[first.id].trace_id]
    assert runs[again].trace_id != runs[first.id].trace_id


def test_the_tracer_provider_of_the_app_is_used_where_it_has_one(worker, receiver, send):
    begun = worker(TEST_OWN_PROVIDER=receiver.url, STREAMWORK_TELEMETRY_OTLP_ENDPOINT="http://127.0.0.1:1")
    handle = send(traced.in_loop, 7)
    handle.result(timeout=10)
    stop(begun)
    assert {span.resource["service.name"] for span in receiver.spans} == {"mine"}
    assert handle.id in processing(receiver)
    assert "inner" in {span.name for span in receiver.spans}


def test_of_the_traces_that_begin_here_a_share_is_kept_and_of_others_all(worker, receiver, tracing_app, send):
    begun = worker(STREAMWORK_TELEMETRY_SAMPLE="0")
    alone, child = send(traced.leaf, 1), tracing_app.call(traced.leaf.name, 2).enqueue()
    assert (alone.result(timeout=10), child.result(timeout=10)) == (1, 2)
    stop(begun)
    assert list(processing(receiver)) == [child.id]


def test_a_receiver_that_is_away_holds_up_neither_work_nor_end(worker, send):
    begun = worker(STREAMWORK_TELEMETRY_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert [send(traced.leaf, n).result(timeout=10) for n in range(3)] == [0, 1, 2]
    stop(begun)


def test_where_traces_are_off_no_tracing_is_imported(start, send, look):
    start("tests.apps.basic:app", environ={"STREAMWORK_TELEMETRY_TRACES": "off"})
    found = send(basic.modules).result(timeout=10)
    assert not [name for name in found if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))]
    ours = [name for name in found if name.startswith("streamwork.telemetry.")]
    assert sorted(ours) == [
        "streamwork.telemetry.exposition",
        "streamwork.telemetry.last_lines",
        "streamwork.telemetry.logs",
        "streamwork.telemetry.meters",
    ]


def test_also_where_traces_are_off_a_message_says_which_one_sent_it(start, send, look):
    start("tests.apps.traced:app", environ={"STREAMWORK_TELEMETRY_TRACES": "off"})
    handles = [send(task, 7) for task in (traced.in_loop, traced.in_thread, traced.in_process)]
    children = {child: handle.id for handle in handles for child in handle.result(timeout=20)}
    wait_until(lambda: look().backlog == 0, "the children have run")
    records = {record.id: record for record in look().journal}
    assert {child: records[child].parent for child in children} == children
    assert {records[handle.id].parent for handle in handles} == {""}
    assert {record.trace_id for record in records.values()} == {""}
