"""What is stored: bytes of released versions still read the same, and what is not ours is refused."""

from __future__ import annotations

import msgspec
import pytest

from streamwork.errors import DecodeError
from streamwork.wire import message as wire
from tests.wire.samples import FOLDER, ID, SAMPLES, golden

VERSIONS = range(1, wire.WIRE_VERSION + 1)


def test_there_is_a_golden_file_of_every_version_and_no_other():
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"v{version}.bin" for version in VERSIONS]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("version", VERSIONS)
def test_stored_bytes_read_as_they_were_meant(version, name):
    stored = golden(version).get(name)
    if stored is None:
        pytest.skip(f"version {version} had no {name}")
    expected, _, read = SAMPLES[name]
    assert read(stored) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_this_version_writes_the_same_bytes(name):
    assert SAMPLES[name][1]() == golden(wire.WIRE_VERSION)[name]


def test_a_message_of_a_newer_version_is_refused_with_what_to_do():
    body = msgspec.msgpack.encode([wire.WIRE_VERSION + 1, ID, "t", [], None, None, None])
    with pytest.raises(DecodeError, match="upgrade this worker"):
        wire.decode_message(body)


def test_fields_added_behind_the_known_ones_do_no_harm():
    message = wire.decode_message(msgspec.msgpack.encode([1, ID, "t", [], None, None, "c", "later", 9]))
    assert (message.task, message.reply_to) == ("t", "c")


def test_a_message_without_the_last_fields_has_their_defaults():
    message = wire.decode_message(msgspec.msgpack.encode([1, ID, "t", [1]]))
    assert (bytes(message.kwargs), message.options, message.reply_to) == (b"\xc0", None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"\xc0",
        b"\xff\xff",
        msgspec.msgpack.encode([1, 2, 3, 4]),
        msgspec.msgpack.encode({"version": 1}),
        msgspec.msgpack.encode(["1", ID, "t", []]),
        b"\x94\x01\xa1\xff\xa1t\x90",
        wire.encode_message(ID, "t", b"\x90", None, wire.NO_OPTIONS, None)[:-1],
        msgspec.msgpack.encode([1, ID, "t", [], None, {"t": "soon"}]),
    ],
)
def test_what_is_no_message_is_refused(body):
    with pytest.raises(DecodeError):
        wire.decode_message(body)


@pytest.mark.parametrize("field", [b"", b"1,2", b"1,2,3,4,5,6,7", b"a,0,0,1,0", b"\xff"])
def test_an_attempt_record_that_is_short_reads_and_a_broken_one_is_refused(field):
    if field == b"1,2":
        assert wire.decode_attempt(field) == wire.Attempt(1, 2)
    else:
        with pytest.raises(DecodeError):
            wire.decode_attempt(field)


def test_a_first_attempt_is_the_default():
    assert wire.decode_attempt(wire.encode_attempt(wire.FIRST_ATTEMPT).encode()) == wire.Attempt(1, 0, 0, 1, 0)


@pytest.mark.parametrize("record", [b"", b"token", b"token\nstate"])
def test_what_is_no_result_is_refused(record):
    with pytest.raises(DecodeError):
        wire.decode_result(record)


@pytest.mark.parametrize("read", [wire.decode_failure, wire.decode_journal, wire.decode_dead_letter])
@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x91\x01", b"\x93\xa1\xff\xa1a\xa1a", b"garbage"])
def test_what_is_no_record_is_refused(read, data):
    with pytest.raises(DecodeError):
        read(data)
