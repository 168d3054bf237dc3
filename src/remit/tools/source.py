"""The text that a tool was made from: loaded, digested, and named where it broke."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from remit.tools.spec import Tool
from remit.values import Json


class FileLoader(SourceFileLoader):
    """Loads one file of a project from its text; compiled files are neither left beside it nor trusted if they are.

    `entry` is the file's name within the project, `digest` the SHA-256 of the text as it was compiled.
    """

    def __init__(self, name: str, path: str, entry: str) -> None:
        super().__init__(name, path)
        self.entry = entry
        self.digest = ""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        text = self.get_data(self.path)
        self.digest = hashlib.sha256(text).hexdigest()
        return self.source_to_code(text, self.path)


def source_digest(of: ModuleType | Tool) -> str:
    """SHA-256 of the text of a module, or of the one that declares a tool; empty where there is no text.

    Of a project's file it is the text that was compiled, whatever the file says now; of an installed module, which
    Python may have compiled earlier, the text that is installed.
    """
    return of.source if isinstance(of, Tool) else digest_of(vars(of))


def digest_of(namespace: Mapping[str, Any]) -> str:
    """`source_digest` of the module with these globals."""
    loader = namespace.get("__loader__")
    if isinstance(loader, FileLoader):
        return loader.digest
    try:
        return hashlib.sha256(Path(namespace["__file__"]).read_bytes()).hexdigest()
    except (KeyError, TypeError, OSError):
        return ""


def code_of(tool: Tool) -> dict[str, Json]:
    """What a release should bind of a tool beside its spec: the text behind it, and which functions it has."""
    return {
        "source": tool.source,
        "locate": tool.locate is not None,
        "reconcile": tool.reconcile is not None,
        "compensation": tool.compensation.tool if tool.compensation is not None else None,
    }


def place_of(error: BaseException, module: str) -> str:
    """`tools/desk.py:14`: the innermost line of a module that an error came through; empty if it came through none."""
    frames = [
        (frame.f_globals, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == module
    ]
    if not frames:
        return ""
    namespace, line = frames[-1]
    loader = namespace.get("__loader__")
    return f"{loader.entry if isinstance(loader, FileLoader) else module}:{line}"
