"""A model of a Redis server inside LuaJIT: the real scripts run there over a model of the commands they use."""

from __future__ import annotations

from pathlib import Path

import hiredis
import msgspec
from lupa.luajit21 import LuaRuntime

from streamwork.store.keys import QueueKeys

KEYS = QueueKeys("m", "q")
_WATCHED = (
    "consumers", "grace", "control", "result_prefix", "due", "due_body", "dead", "moved", "cancelled", "suspects",
    "low", "added", "settled", "restoring", "kept",
)  # fmt: skip
_HERE = Path(__file__).parent
_FILES = ("core", "plain", "streams", "groups", "ghost", "order")


class ModelServer:
    """One model; `reset` makes a new, empty server of it.

    Attributes:
        now_ms: Its wall clock.
        wrong: What an invariant says of the last write, or None.
    """

    def __init__(self):
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._lua.execute(
            b"jit.off()"
        )  # scripts make closures at each call, which spoils every trace: three times as fast
        self.model = self._lua.eval("{}")
        load = self._lua.eval("function(source, name) return assert(loadstring(source, name)) end")
        for name in _FILES:
            load((_HERE / f"{name}.lua").read_bytes(), b"@" + name.encode())(self.model)
        self.model[b"unpack"] = self._unpack
        self._execute = self.model[b"execute"]
        self._load = self.model[b"load"]
        self._reset = self.model[b"reset"]
        self._names = self._lua.table_from({name.encode(): getattr(KEYS, name).encode() for name in _WATCHED})
        self._names[b"lane"] = KEYS.lane("").encode()
        self._loaded = set()
        self._reader = hiredis.Reader()
        self.now_ms = 0
        self.wrong = None

    def _unpack(self, text):
        """What cmsgpack answers for a task message: texts as they are, whatever else as true."""
        members = msgspec.msgpack.decode(text)
        return self._lua.table_from([one.encode() if isinstance(one, str) else True for one in members])

    def reset(self, now_ms, version=7):
        """Begin anew, without a key."""
        self.now_ms = now_ms
        self.wrong = None
        self._reset(version, now_ms)

    def watch(self, exact_trim):
        """Look at the queue `KEYS` with the invariants of ghost.lua after every write."""
        self.model[b"watch"](self._names)
        self.model[b"exact_trim"] = exact_trim
        self._ghost = self.model[b"g"]

    def expect(self, task_id, body):
        """Know a task message by its body."""
        self.model[b"expect"](task_id.encode(), body)

    def was_added(self, task_id):
        """Whether it ever came to a lane."""
        return self._ghost[b"n"][task_id.encode()] is not None

    @property
    def signals(self):
        """How many signals were ever given."""
        return self._ghost[b"signals"]

    def is_excused(self, task_id):
        """Whether nothing is promised of it any more."""
        return self._ghost[b"excused"][task_id.encode()] is not None

    def outcome(self, task_id):
        """The token of its outcome, or None."""
        token = self._ghost[b"outcome"][task_id.encode()]
        return None if token is None else token.decode()

    def excuse(self):
        """Promise nothing of what is there now."""
        self.model[b"excuse"]()

    def taint(self):
        """Let the lanes' counters be anything until the maintainer re-checks them."""
        self.model[b"taint"]()

    def stepped(self):
        """Know that ids and marks are of different clocks."""
        self._ghost[b"is_stepped"] = True

    def names(self):
        """The names of all keys."""
        return sorted(key for key, _ in self.model[b"db"].items())

    def call(self, name, *args):
        """Call a function of the model that takes no keys of ours."""
        answer = self.model[name.encode()](*args)
        return answer.decode() if isinstance(answer, bytes) else answer

    @property
    def is_full(self):
        """Whether it says that little memory is left."""
        return self.model[b"is_full"]

    @is_full.setter
    def is_full(self, is_full):
        self.model[b"is_full"] = is_full

    def not_before(self, task_id, at_ms):
        """Know that a message may come to a lane from this instant of the server on, and no earlier."""
        self.model[b"not_before"](task_id.encode(), at_ms)

    def entry_holds(self, lane, entry):
        """The id of the message in this entry, or None."""
        task_id = self._ghost[b"entries"][f"{KEYS.lane(lane)}/{entry}".encode()]
        return None if task_id is None else task_id.decode()

    @property
    def is_tainted(self):
        """Whether a group or data was taken away."""
        return self._ghost[b"is_tainted"] is not None

    def is_settled(self, lane, entry):
        """Whether this entry was settled once."""
        return self._ghost[b"settled"][f"{KEYS.lane(lane)}/{entry}".encode()] is not None

    def execute(self, command):
        """Run a `Command` as it would go over the wire; its raw reply, which may be a hiredis.ReplyError."""
        script = command.script
        if script is not None and script.sha not in self._loaded:
            self._load(script.sha.encode(), script.source)
            self._loaded.add(script.sha)
        args = command.args
        try:
            packed = [_texts[arg] for arg in args]
        except KeyError:
            packed = _packed(args)
        reply, wrong = self._execute(self.now_ms, *packed)
        if wrong is not None:
            self.wrong = wrong.decode()
        self._reader.feed(reply)
        return self._reader.gets()


# What requests are made of repeats itself from world to world.
_texts = {}


def _packed(args):
    if len(_texts) > 50_000:
        _texts.clear()
    for arg in args:
        kind = arg.__class__
        if kind is bytes:
            _texts[arg] = arg
        elif kind is str:
            _texts[arg] = arg.encode()
        else:
            _texts[arg] = b"%d" % arg if kind is int else repr(arg).encode()
    return [_texts[arg] for arg in args]
