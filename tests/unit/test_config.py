"""Settings: which layer wins, where each value came from, and how wrong ones are answered."""

from __future__ import annotations

import msgspec
import pytest

from streamwork import config
from streamwork.config import Config, load, setting_names, value_of, variable_of
from streamwork.errors import ConfigError

TOML = """
[tool.streamwork]
url = "redis://file"
[tool.streamwork.worker]
slots = 11
tags = ["file"]
"""


@pytest.fixture
def folder(tmp_path):
    """A project folder with settings, and a folder deep inside it."""
    (tmp_path / "pyproject.toml").write_text(TOML)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    return inside


def test_without_anything_the_defaults_hold(tmp_path):
    loaded = load({}, tmp_path, {})
    assert msgspec.structs.replace(loaded.config, folder=".streamwork") == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(setting_names())


def test_the_file_is_found_from_below_and_named_as_the_origin(folder):
    loaded = load({}, folder, {})
    assert (loaded.config.url, loaded.config.worker.slots, loaded.config.worker.tags) == ("redis://file", 11, ("file",))
    assert loaded.origins["worker.slots"] == str(folder.parent.parent / "pyproject.toml")
    assert loaded.origins["worker.threads"] == "default"


def test_each_layer_beats_the_one_before(folder):
    environ = {"STREAMWORK_URL": "redis://env", "STREAMWORK_WORKER_SLOTS": "12", "STREAMWORK_KEEP_RESULT_S": "1.5"}
    code = {"worker.slots": 13, "keep.result_s": None}
    loaded = load(code, folder, environ, {"worker.threads": 4})
    config, origins = loaded.config, loaded.origins
    assert (config.url, origins["url"]) == ("redis://env", "STREAMWORK_URL")
    assert (config.worker.slots, origins["worker.slots"]) == (13, "code")
    assert (config.worker.tags, origins["worker.tags"][-14:]) == (("file",), "pyproject.toml")
    assert (config.keep.result_s, origins["keep.result_s"]) == (1.5, "STREAMWORK_KEEP_RESULT_S")
    assert (config.worker.threads, origins["worker.threads"]) == (4, "flag")
    assert load(code, folder, environ, {"worker.slots": 14}).config.worker.slots == 14


@pytest.mark.parametrize(
    ("text", "tags"), [("a", ("a",)), ("a,b", ("a", "b")), (" a , b ,", ("a", "b")), ("", ()), (",", ())]
)
def test_lists_in_variables_are_comma_separated(tmp_path, text, tags):
    assert load({}, tmp_path, {"STREAMWORK_WORKER_TAGS": text}).config.worker.tags == tags


@pytest.mark.parametrize("tags", [["b", "a"], ("b", "a")])
def test_lists_in_code_keep_their_order(tmp_path, tags):
    assert load({"worker.tags": tags}, tmp_path, {}).config.worker.tags == ("b", "a")


def test_every_setting_has_a_variable_of_its_own_and_can_be_read_by_name():
    names = setting_names()
    assert len({variable_of(name) for name in names}) == len(names)
    assert variable_of("worker.drain_timeout_s") == "STREAMWORK_WORKER_DRAIN_TIMEOUT_S"
    assert value_of(Config(), "worker.slots") == 100
    assert value_of(Config(), "url") is None
    assert all(hasattr(value_of(Config(), name), "__class__") for name in names)


@pytest.mark.parametrize(
    ("code", "environ", "words"),
    [
        ({"worker.slot": 1}, {}, ["'worker.slot'", "in code", "did you mean worker.slots?"]),
        ({"slots": 1}, {}, ["unknown setting 'slots'"]),
        ({"worker.slots": "many"}, {}, ["worker.slots", "set by code"]),
        ({}, {"STREAMWORK_WORKER_SLOTS": "many"}, ["worker.slots", "set by STREAMWORK_WORKER_SLOTS"]),
        ({"worker.slots": 0}, {}, ["worker.slots = 0", "1 at least"]),
        ({"worker.slots": 10**9}, {}, ["worker.slots", "at most"]),
        ({"worker.tags": "gpu"}, {}, ["worker.tags"]),
        ({"liveness.ttl_s": 0.1}, {}, ["liveness.ttl_s = 0.1", "0.5 at least"]),
        ({"liveness.ttl_s": float("nan")}, {}, ["liveness.ttl_s = nan"]),
        ({"liveness.ttl_s": float("inf")}, {}, ["liveness.ttl_s = inf"]),
        ({"client.max_lanes": 0}, {}, ["client.max_lanes = 0"]),
        ({"client.deadline_s": 0}, {}, ["client.deadline_s = 0"]),
        ({"worker.max_tasks": -1}, {}, ["worker.max_tasks = -1"]),
        ({"keep.history_s": -1}, {}, ["keep.history_s '-1'", "for all queues"]),
        ({"log_level": "warn"}, {}, ["log_level = 'warn'", "did you mean warning?"]),
        ({"worker": 3}, {}, ["unknown setting 'worker'"]),
        (
            {},
            {"STREAMWORK_WORKER_QUEUES": "mail jobs"},
            ["worker.queues 'mail jobs'", "set by STREAMWORK_WORKER_QUEUES"],
        ),
        ({}, {"STREAMWORK_WORKER_TAGS": "ok,a b"}, ["worker.tags 'a b'", "set by STREAMWORK_WORKER_TAGS"]),
        ({"worker.queues": ["a{b}"]}, {}, ["worker.queues 'a{b}'", "set by code"]),
        ({"namespace": "a:b"}, {}, ["namespace 'a:b'", "set by code"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_origin_and_the_nearest(tmp_path, code, environ, words):
    with pytest.raises(ConfigError) as raised:
        load(code, tmp_path, environ)
    for word in words:
        assert word in str(raised.value)


KUBERNETES = {"STREAMWORK_SERVICE_HOST": "10.0.0.1", "STREAMWORK_PORT": "tcp://10.0.0.1:6379"}


def test_a_variable_that_is_no_setting_is_warned_of_once_and_stops_nothing(tmp_path, caplog, monkeypatch):
    """Kubernetes makes such ones for a Service named streamwork."""
    monkeypatch.setattr(config, "_warned", set())
    environ = {**KUBERNETES, "STREAMWORK_WORKER_SLOT": "1", "STREAMWORK_WORKER_THREADS": "4"}
    loaded = load({}, tmp_path, environ)
    assert (loaded.config.worker.slots, loaded.config.worker.threads) == (100, 4)
    assert len(loaded.unknown) == 3
    assert loaded.unknown[-1] == "unknown variable STREAMWORK_WORKER_SLOT: did you mean STREAMWORK_WORKER_SLOTS?"
    assert load({}, tmp_path, environ).unknown == loaded.unknown
    assert [record.getMessage() for record in caplog.records] == list(loaded.unknown)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("name", ["worker.tags", "url", "worker.slots"])
def test_an_empty_variable_is_none_at_all(folder, name):
    loaded = load({}, folder, {variable_of(name): ""})
    assert value_of(loaded.config, name) == value_of(load({}, folder, {}).config, name) != value_of(Config(), name)
    assert loaded.origins[name].endswith("pyproject.toml")


def test_a_current_folder_that_is_gone_is_a_setting_that_is_wrong(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="the current folder is gone"):
        load({}, None, {})
    assert load({}, tmp_path, {}).config.worker.slots == 100


def test_variables_of_the_tests_and_the_bench_are_no_settings(tmp_path):
    environ = {"STREAMWORK_TEST_ANYTHING": "1", "STREAMWORK_BENCH_X": "1", "OTHER": "1"}
    assert load({}, tmp_path, environ).unknown == ()


@pytest.mark.parametrize(
    "text",
    [
        "[tool.streamwork\n",
        "[tool]\nstreamwork = 3\n",
        "tool = 3\n",
        '[tool.streamwork]\nurls = "x"\n',
        "[tool.streamwork.worker]\nslots = []\n",
        "[tool.streamwork]\nworker = 3\n",
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text):
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        load({}, tmp_path, {})


def test_a_file_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"[tool.streamwork]\nurl = '\xff'\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        load({}, tmp_path, {})


def test_the_spans_of_liveness_keep_their_order(tmp_path):
    """A reaper's pulse must lapse before a live worker's key, and a standby take over before the pulse lapses."""
    for ttl_s in (0.5, 1, 5, 60):
        live = load({"liveness.ttl_s": ttl_s}, tmp_path, {}).config.liveness
        assert live.beat_s * 4 == pytest.approx(ttl_s)
        assert live.reap_s * 1000 + live.near_ms < live.pulse_ms <= live.ttl_ms - 2 * live.beat_s * 1000


@pytest.mark.parametrize("given", [5, "5", "5,mail=7", ["5", "mail=7"], {"*": 5, "mail": 7}])
def test_limits_of_backlogs_are_a_number_a_list_or_a_table(given, tmp_path):
    found = load({"client.max_backlog": given}, tmp_path, {}).config.client.backlogs
    assert found == ({"*": 5} if given in (5, "5") else {"*": 5, "mail": 7})


def test_limits_of_backlogs_come_from_the_file_and_the_environment(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.streamwork.client.max_backlog]\nmail = 7\n")
    assert load(None, tmp_path, {}).config.client.backlogs == {"mail": 7}
    assert load(None, tmp_path, {"STREAMWORK_CLIENT_MAX_BACKLOG": "9,x=0"}).config.client.backlogs == {"*": 9, "x": 0}


@pytest.mark.parametrize("given", [-1, "many", "mail=", "m l=5", 1.5, ["mail=-1"], {"mail": None}, True, [5], "1_000"])
def test_a_limit_that_is_no_whole_number_is_refused_by_name(given, tmp_path):
    with pytest.raises(ConfigError, match="max_backlog"):
        load({"client.max_backlog": given}, tmp_path, {})


@pytest.mark.parametrize("given", [3600, 3600.0, "3600,mail=0.5", {"*": 3600, "mail": 0.5}, ["3600", "mail=0.5"]])
def test_how_long_history_is_kept_is_said_by_queue(given, tmp_path):
    keep = load({"keep.history_s": given, "keep.history_most": "mail=5"}, tmp_path, {}).config.keep
    assert keep.age_ms("other") == 3_600_000
    assert keep.age_ms("mail") == (3_600_000 if given == 3600 else 500)
    assert (keep.most("mail"), keep.most("other")) == (5, 0)


def test_where_nothing_is_said_of_a_queue_its_history_is_kept_for_a_week(tmp_path):
    keep = load({"keep.history_s": "mail=0"}, tmp_path, {}).config.keep
    assert (keep.age_ms("mail"), keep.age_ms("other"), Config().keep.age_ms("x")) == (0, 604_800_000, 604_800_000)


def test_dead_letters_are_kept_for_90_days_where_nothing_else_is_said(tmp_path):
    keep = load({"keep.dead_s": "mail=0,*=5"}, tmp_path, {}).config.keep
    assert (keep.dead_ms("mail"), keep.dead_ms("other"), Config().keep.dead_ms("x")) == (0, 5_000, 90 * 86_400_000)


@pytest.mark.parametrize("given", [-1, "long", "mail=", float("nan"), float("inf"), 1e20, True, {"mail": None}, "1h"])
@pytest.mark.parametrize("setting", ["keep.history_s", "keep.history_most", "keep.dead_s"])
def test_what_is_no_bound_of_history_is_refused_by_name(setting, given, tmp_path):
    with pytest.raises(ConfigError, match=setting):
        load({setting: given}, tmp_path, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRACES", "yes"), ("METRICS", "on"), ("SAMPLE", "1.01"), ("SAMPLE", "nan"),
        ("OTLP_ENDPOINT", "collector:4318"), ("METRICS_PORT", "65536"), ("PUSH_S", "0"),
    ],
)  # fmt: skip
def test_telemetry_that_cannot_be_is_refused_and_its_origin_named(tmp_path, variable, value):
    name = f"STREAMWORK_TELEMETRY_{variable}"
    with pytest.raises(ConfigError, match=f"telemetry.{variable.lower()}.*set by {name}"):
        load({}, tmp_path, {name: value})


def test_telemetry_is_off_unless_something_is_said(tmp_path):
    telemetry = load({}, tmp_path, {}).config.telemetry
    assert (telemetry.traces, telemetry.metrics, telemetry.metrics_port, telemetry.counts) == ("off", "off", 0, False)
