"""Run a function in a forked child and get its answer."""

from __future__ import annotations

import os
import pickle
import traceback
import warnings


def in_child(function, *args):
    """Fork, call the function there, and return what it returns; what it raises fails the test."""
    return start_child(function, *args)()


def start_child(function, *args):
    """Fork and call the function there; the callable that is returned waits for its answer."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads, and they are what is tested
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = (True, function(*args))
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)  # not the test's own way out, with its reports and fixtures
    os.close(writing)

    def wait():
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        assert data, "the child died"
        is_good, answer = pickle.loads(data)
        assert is_good, answer
        return answer

    return wait
