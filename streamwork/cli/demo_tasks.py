"""The demo's app and its one task: what is in a Python file. Workers import this as `streamwork.cli.demo_tasks:app`."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streamwork.app import Streamwork

TAG = "demo"

app = Streamwork("streamwork-demo")

# The name that parsed files go by, so that what Python has to say about their age is told apart and left out.
_SCANNED = "<scanned>"
warnings.filterwarnings("ignore", module=re.escape(_SCANNED))

# Where statements hold statements; definitions and imports are never inside an expression.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class FileFacts(msgspec.Struct, frozen=True):
    """What is in one Python file.

    Attributes:
        lines: Lines; 0 where it cannot be read.
        functions: `def` and `async def`, methods included.
        classes: Classes.
        imports: Import statements.
        parses: False for what this Python cannot read or parse: all counts but `lines` are 0 then.
    """

    lines: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0
    parses: bool = False


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        for block in _BLOCKS:
            stack.extend(getattr(node, block, ()))


@app.task(name="scan", tags={TAG})
def scan(path: Path) -> FileFacts:
    """Count what is in a file; one that cannot be read or parsed is a result too, not an error."""
    try:
        source = path.read_bytes()
    except OSError:
        return FileFacts()
    lines = len(source.splitlines())
    try:
        tree = ast.parse(source, _SCANNED)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # null bytes and deep nesting have their own
        return FileFacts(lines)
    kinds = Counter(map(type, _statements(tree)))
    return FileFacts(
        lines,
        functions=kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        classes=kinds[ast.ClassDef],
        imports=kinds[ast.Import] + kinds[ast.ImportFrom],
        parses=True,
    )
