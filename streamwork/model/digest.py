"""How the same failure is known again: a digest of the error's class and of where it was raised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

# What runs a body differs by executor and release, and tells nothing of the failure.
_OURS = str(Path(__file__).resolve().parent.parent)
# The innermost ones; a recursion has thousands, and all alike.
_MOST_FRAMES = 30


def digest_of(type_name: str, trace: TracebackType | None = None) -> str:
    """Return 12 hex digits that two failures share when an error of one class came the same way.

    Texts and line numbers do not count: a text names the order that failed, and a line moves with each release.

    Args:
        type_name: Of the error.
        trace: How it came; None = only the class counts.
    """
    found: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(_OURS):
            found.append(f"{Path(code.co_filename).name}:{code.co_qualname}")
        trace = trace.tb_next
    return _hashed((type_name, *found[-_MOST_FRAMES:]))


def _hashed(parts: Iterable[str]) -> str:
    text = "\n".join(parts).encode(errors="backslashreplace")
    return hashlib.blake2b(text, digest_size=6).hexdigest()
