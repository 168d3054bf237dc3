"""Every error that Remit raises, in one tree.

    RemitError
    ├── ConfigError            a file of the project is wrong (holds every problem found)
    ├── IdentityError          a token, key or principal is not acceptable
    ├── StorageError           the record can't be read or written
    │   └── FenceLost          another worker has already written this position of the run
    ├── ExportError            a copy of the record did not arrive where it was sent
    ├── CaseError              a case can't be decided in the way that was asked
    ├── RecordError            what was asked of the record may not be done, or not now
    ├── MemoryRefused          a document can't be kept, found or taken back in the way that was asked
    ├── RunError               a run can't go on
    │   ├── Diverged           the code asks for something else than the record holds
    │   └── NotCompleted       a call that its caller relied upon did not complete
    └── ToolError              what a tool raises
        ├── ToolFailed         it certainly did not happen
        └── OutcomeUnknown     it may have happened: never retried blindly

A denial is a value (`remit.gate.verdicts.Deny`), not an exception. Codes are stable: the command line, HTTP and MCP
show the same ones.
"""

from __future__ import annotations


class RemitError(Exception):
    """Base of the tree: a stable `code` and a message that says what to do next."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ConfigError(RemitError):
    """A file of the project is wrong."""

    code = "config_invalid"


class IdentityError(RemitError):
    """A token, key or principal is not acceptable; `code` says which of these."""

    code = "identity_invalid"


class StorageError(RemitError):
    """The record can't be read or written; nothing that needs a record may run.

    `run` is the one whose record it is about, where it is about one.
    """

    code = "storage_unavailable"

    def __init__(self, message: str, *, code: str | None = None, run: str = "") -> None:
        super().__init__(message, code=code)
        self.run = run


class FenceLost(StorageError):
    """Another worker wrote this position of the run first; this one must stop before it acts."""

    code = "fence_lost"


class ExportError(RemitError):
    """A copy of the record did not arrive where it was sent; nothing of the record is lost."""

    code = "export_failed"


class CaseError(RemitError):
    """A case can't be decided in the way that was asked."""

    code = "case_invalid"


class RecordError(RemitError):
    """What was asked of the record may not be done, or not now."""

    code = "record_denied"


class MemoryRefused(RemitError):
    """A document can't be kept, found or taken back in the way that was asked."""

    code = "memory_refused"


class RunError(RemitError):
    """A run can't be opened or can't go on."""

    code = "run_invalid"


class Diverged(RunError):
    """The code of `run` asks for something else than its record holds at the same step."""

    code = "diverged"

    def __init__(self, message: str, *, code: str | None = None, run: str = "") -> None:
        super().__init__(message, code=code)
        self.run = run


class ToolError(RemitError):
    """What a tool raises when it does not return."""

    code = "tool_error"


class ToolFailed(ToolError):
    """It certainly did not happen.

    `retryable` says that the same request may succeed later; `retry_after_ms` is how long the other side asked to wait.
    `usage`: what it cost all the same, where the tool counts that; plain JSON as in a result.
    """

    code = "tool_failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.usage: dict[str, object] | None = None


class OutcomeUnknown(ToolError):
    """The request left and no trustworthy answer came: it may have happened.

    Code `answered`: the system itself answered with an error, and so has done with the call.
    """

    code = "outcome_unknown"
