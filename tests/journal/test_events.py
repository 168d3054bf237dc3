"""Events and the keys they are encrypted under: what was written is read back, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from remit.errors import StorageError
from remit.journal.events import START, ChainEnd, Draft, Event, EventType, Row, after, leaf_hash, read, write
from remit.journal.vault import RunKeys, Vault, WrappedKeys

NOW_US = 1_750_000_000_000_000
VAULT = Vault(b"m" * 32)
KEYS, WRAPPED = VAULT.create("run-1")

bodies: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=10,
)


def draft(body: Any = None, sealed: Any = None, **more: Any) -> Draft:
    return Draft(type=EventType.CALL_DECIDED, actor="agent/northwind/desk", body=body, sealed=sealed, **more)


def written(one: Draft, *, run: str = "run-1", behind: ChainEnd = START, keys: RunKeys = KEYS) -> Row:
    return write(one, tenant="northwind", run=run, behind=behind, at=NOW_US, keys=keys)


def corrupt(row: Row, keys: RunKeys = KEYS) -> str:
    with pytest.raises(StorageError) as raised:
        read(row, keys)
    assert raised.value.code == "record_corrupt"
    return raised.value.message


def rehashed(row: Row, **changes: Any) -> Row:
    """The row as somebody leaves it who changes its header and knows how it is hashed."""
    header = json.dumps({**json.loads(row.header), **changes}).encode()
    return replace(row, header=header, hash=leaf_hash(header))


@given(bodies, st.none() | bodies)
@settings(deadline=None)
def test_body_and_originals_are_read_back_as_they_were_written(body: Any, sealed: Any) -> None:
    event = read(written(draft(body, sealed)), KEYS)
    assert (event.body, event.sealed) == (body, sealed)


def test_the_header_says_what_the_draft_said_and_where_it_stands() -> None:
    first = read(written(draft(1)), KEYS)
    more = {"verdict": "allow", "cost_microusd": 5, "tokens_in": 6, "tokens_out": 7, "latency_us": 8}
    given = draft({"a": 1}, span="3.1.2", refs={"release": "ab"}, **more)
    header = read(written(given, behind=after(first)), KEYS).header
    assert (header.v, header.tenant, header.run, header.n, header.at) == (1, "northwind", "run-1", 2, NOW_US)
    assert (header.prev, header.span, header.parent) == (first.hash.hex(), "3.1.2", "3.1")
    assert (header.type, header.actor, header.refs) == ("call.decided", "agent/northwind/desk", {"release": "ab"})
    assert {name: getattr(header, name) for name in more} == more


def test_the_hash_is_the_leaf_hash_of_rfc_6962() -> None:
    row = written(draft({"a": 1}))
    assert row.hash == hashlib.sha256(b"\x00" + row.header).digest()
    assert START.prev == b""
    assert json.loads(row.header)["prev"] == ""


def test_large_bodies_are_compressed_and_come_back_whole() -> None:
    even = {"note": "the same words again and again. " * 40_000}
    uneven = {"note": os.urandom(500_000).hex()}
    row = written(draft(even))
    assert len(row.body) < 100_000
    assert read(row, KEYS).body == even
    assert read(written(draft(uneven, even)), KEYS).body == uneven


ROW = written(draft({"args": {"to": "ann"}}, {"args": {"to": "ann@corp.example"}}))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_anywhere_in_the_row_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["hash", "header", "body", "sealed"]))
    value = bytearray(getattr(ROW, name))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    corrupt(replace(ROW, **{name: bytes(value)}))


@given(st.data())
@settings(deadline=None)
def test_a_column_that_is_cut_or_grown_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["hash", "header", "body", "sealed"]))
    value: bytes = getattr(ROW, name)
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    corrupt(replace(ROW, **{name: cut}))
    corrupt(replace(ROW, **{name: value + data.draw(st.binary(min_size=1, max_size=3))}))


@pytest.mark.parametrize(
    "change",
    [{"tenant": "southwind"}, {"run": "run-2"}, {"n": 2}, {"type": "call.completed"}, {"at": NOW_US + 1}],
    ids=lambda change: next(iter(change)),
)
def test_columns_that_disagree_with_the_header_are_found(change: dict[str, Any]) -> None:
    assert "`run-" in corrupt(replace(ROW, **change))


def test_a_body_moved_to_another_position_or_run_is_refused() -> None:
    one = written(draft({"a": 1}, {"a": "x"}))
    two = written(draft({"a": 1}, {"a": "x"}), behind=after(read(one, KEYS)))
    other_keys, _ = VAULT.create("run-2")
    other = written(draft({"a": 1}, {"a": "x"}), run="run-2", keys=other_keys)
    # The same key under another run's name: only the place that is authenticated tells them apart.
    same_key = written(draft({"a": 1}, {"a": "x"}), run="run-2", keys=KEYS)
    for moved in (two, other, same_key):
        corrupt(replace(one, body=moved.body))
        corrupt(replace(one, sealed=moved.sealed))


def test_body_and_originals_can_not_change_places() -> None:
    assert ROW.sealed is not None
    corrupt(replace(ROW, sealed=ROW.body))
    corrupt(replace(ROW, body=ROW.sealed))


def test_rows_that_changed_places_are_refused() -> None:
    one = written(draft({"a": 1}))
    two = written(draft({"a": 2}), behind=after(read(one, KEYS)))
    assert "columns disagree" in corrupt(replace(one, header=two.header, hash=two.hash, body=two.body))
    assert "columns disagree" in corrupt(replace(two, header=one.header, hash=one.hash, body=one.body))


def test_a_body_encrypted_anew_at_the_same_place_is_not_the_one_that_the_header_names() -> None:
    """Whoever holds the keys but not the header's hash: an older or a forged body does not pass."""
    assert "not the one" in corrupt(replace(ROW, body=written(draft({"args": {"to": "eve"}})).body))


def test_a_header_that_was_changed_and_hashed_again_still_has_to_fit() -> None:
    assert "columns disagree" in corrupt(rehashed(ROW, n=2))
    assert "not the one" in corrupt(rehashed(ROW, body="00" * 32))
    assert "can't be read" in corrupt(rehashed(ROW, surprise=1))
    assert "can't be read" in corrupt(rehashed(ROW, n="1"))
    assert "can't be read" in corrupt(replace(ROW, header=b"{", hash=leaf_hash(b"{")))
    assert "`call.forgotten`" in corrupt(replace(rehashed(ROW, type="call.forgotten"), type="call.forgotten"))


def test_nothing_of_a_body_stands_in_the_header_or_in_the_clear() -> None:
    words = ["Ann Example", "ann@corp.example", "hunter2222"]
    row = written(draft({"shown": words}, {"original": words}))
    stored = row.header + row.body + (row.sealed or b"") + row.hash
    assert not [word for word in words if word.encode() in stored]
    # Salted and encrypted with a fresh nonce: that two bodies are the same does not show.
    again = written(draft({"shown": words}, {"original": words}))
    assert (row.body, row.sealed) != (again.body, again.sealed)
    assert json.loads(row.header)["body"] != json.loads(again.header)["body"]


def opened(wrapped: WrappedKeys, run: str = "run-1", vault: Vault = VAULT) -> RunKeys:
    return vault.open(run, wrapped)


def test_stored_keys_open_what_was_written_under_the_fresh_ones() -> None:
    assert read(ROW, opened(WRAPPED)).sealed == {"args": {"to": "ann@corp.example"}}


def wrong(wrapped: WrappedKeys, run: str = "run-1", vault: Vault = VAULT) -> None:
    with pytest.raises(StorageError) as raised:
        vault.open(run, wrapped)
    assert raised.value.code == "master_key_wrong"
    assert run in raised.value.message


def test_another_master_key_opens_nothing() -> None:
    wrong(WRAPPED, vault=Vault(b"n" * 32))
    wrong(replace(WRAPPED, body=None), vault=Vault(b"n" * 32))


def test_keys_of_another_run_or_in_each_others_place_open_nothing() -> None:
    wrong(WRAPPED, run="run-2")
    wrong(WrappedKeys(body=WRAPPED.sealed, sealed=WRAPPED.body))


@given(st.data())
@settings(deadline=None)
def test_a_stored_key_that_was_changed_or_cut_opens_nothing(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["body", "sealed"]))
    value = bytearray(getattr(WRAPPED, name))
    at = data.draw(st.integers(0, len(value) - 1))
    flipped = bytearray(value)
    flipped[at] ^= data.draw(st.integers(1, 255))
    wrong(replace(WRAPPED, **{name: bytes(flipped)}))
    wrong(replace(WRAPPED, **{name: bytes(value[:at])}))


def test_the_keys_of_one_run_do_not_open_the_bodies_of_another() -> None:
    others, _ = VAULT.create("run-1")
    assert "can't be decrypted" in corrupt(ROW, others)


def test_destroying_the_body_key_erases_the_body_and_leaves_the_chain_whole() -> None:
    event = read(ROW, opened(replace(WRAPPED, body=None, sealed=None)))
    assert (event.body, event.sealed) == (None, None)
    assert event.header == read(ROW, KEYS).header
    # And what can still be verified is verified.
    corrupt(rehashed(ROW, n=2), opened(replace(WRAPPED, body=None, sealed=None)))


def test_destroying_the_sealed_key_drops_the_originals_alone() -> None:
    event = read(ROW, opened(replace(WRAPPED, sealed=None)))
    assert (event.body, event.sealed) == ({"args": {"to": "ann"}}, None)


def test_nothing_more_is_written_under_a_destroyed_key() -> None:
    for gone in (replace(WRAPPED, body=None), replace(WRAPPED, sealed=None)):
        with pytest.raises(StorageError) as raised:
            written(draft({"a": 1}, {"a": 2}), keys=opened(gone))
        assert raised.value.code == "erased"


def test_every_type_of_event_is_read_back_as_itself() -> None:
    for type_ in EventType:
        event: Event = read(written(replace(draft(), type=type_)), KEYS)
        assert event.type is type_
