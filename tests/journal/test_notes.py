"""Checkpoints as signed notes."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from remit.errors import StorageError
from remit.journal.notes import CheckpointKey, open_checkpoint, origin

KEY = CheckpointKey(bytes(range(32)), origin("0123", "shop"))
AT = 1_795_610_115_930_684
# Made when checkpoints did not name their time yet.
EARLY = (
    "remit/0123/shop\n7\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n\n— remit/0123/shop m6xgoEU5zbVA4MwWq028JifQF+jC+jG57OXa8aRiufExdgeBtrQc8o84zUxKBu46tFRCRjOKnh3VgZLltEE8mcwEowE=\n"
)


def test_a_checkpoint_is_read_back_by_its_key() -> None:
    note = KEY.sign(7, b"r" * 32, AT)
    found = open_checkpoint(note, KEY.verifier_key)
    assert (found.origin, found.size, found.root, found.at) == ("remit/0123/shop", 7, b"r" * 32, AT)
    root = base64.b64encode(b"r" * 32).decode()
    assert note.startswith(f"remit/0123/shop\n7\n{root}\nat {AT}\n\n— remit/0123/shop ")


def test_a_checkpoint_of_before_times_were_signed_still_holds() -> None:
    found = open_checkpoint(EARLY, KEY.verifier_key)
    assert (found.size, found.root, found.at) == (7, b"r" * 32, None)


def test_the_key_id_is_the_one_of_signed_notes() -> None:
    """The well-known example key of the note format, of Go's package `note`."""
    known = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    with pytest.raises(StorageError, match="has not signed it"):
        # The key itself is accepted: its id fits name and key.
        open_checkpoint(KEY.sign(1, bytes(32), AT), known)


CHANGES: dict[str, Callable[[str], str]] = {
    "another size": lambda note: note.replace("\n7\n", "\n8\n"),
    "the same size, spelled otherwise": lambda note: note.replace("\n7\n", "\n07\n"),
    "another time": lambda note: note.replace(f"at {AT}", f"at {AT + 1}"),
    "no time": lambda note: note.replace(f"at {AT}\n", ""),
    "the same time, spelled otherwise": lambda note: note.replace("at ", "at 0"),
    "another origin": lambda note: note.replace("remit/0123/shop\n", "remit/0123/other\n", 1),
    "another signature": lambda note: note[:-6] + "AAAA=\n",
    "no signature": lambda note: note.partition("\n\n")[0],
    "nothing": lambda _note: "",
    "one more line": lambda note: note.replace("\n\n", "\nmore\n\n", 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_checkpoint_is_refused(name: str) -> None:
    with pytest.raises(StorageError) as refused:
        open_checkpoint(CHANGES[name](KEY.sign(7, b"r" * 32, AT)), KEY.verifier_key)
    assert refused.value.code == "checkpoint_invalid"


def test_a_checkpoint_of_another_key_is_refused() -> None:
    other = CheckpointKey(bytes(32), KEY.origin)
    with pytest.raises(StorageError, match="has not signed it"):
        open_checkpoint(other.sign(7, bytes(32), AT), KEY.verifier_key)


def test_names_of_tenants_never_collide() -> None:
    assert origin("1", "a/b") == "remit/1/a%2Fb" != origin("1", "a%2Fb")
