"""The key ring: made once, rotated without a gap, and never showing what is private."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import multiprocessing
import pickle
import stat
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console
from rich.traceback import Traceback

from remit.errors import IdentityError
from remit.identity.keys import LOOK_AGAIN_US, KeyRing, master_key, pseudonym_key

NOW_US = 1_750_000_000_000_000
MINUTE_US = 60_000_000
GRACE_US = 15 * MINUTE_US + 30_000_000

ALGORITHMS = pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])


def decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def stored(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "signing.json").read_bytes())["keys"]


def thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638, section 3, written out: the required members in order, no white space, SHA-256."""
    required = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    text = "{" + ",".join(f'"{name}":"{jwk[name]}"' for name in required) + "}"
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@ALGORITHMS
def test_the_first_use_makes_files_that_only_their_owner_can_read(tmp_path: Path, algorithm: str) -> None:
    folder = tmp_path / ".remit" / "keys"
    KeyRing.open(folder, algorithm, NOW_US)
    master_key(folder)
    pseudonym_key(folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {".lock": 0o600, "signing.json": 0o600, "master.key": 0o600, "pseudonym.key": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@ALGORITHMS
def test_opening_again_finds_the_same_key(tmp_path: Path, algorithm: str) -> None:
    first = KeyRing.open(tmp_path / "keys", algorithm, NOW_US)
    assert KeyRing.open(tmp_path / "keys", algorithm, NOW_US).active_kid == first.active_kid


def test_the_thumbprint_is_the_one_of_the_rfc() -> None:
    """RFC 8037, appendix A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@ALGORITHMS
def test_a_key_is_named_by_its_thumbprint_and_published_without_its_private_part(
    tmp_path: Path, algorithm: str
) -> None:
    ring = KeyRing.open(tmp_path / "keys", algorithm, NOW_US)
    (jwk,) = ring.public_jwks(NOW_US)["keys"]
    assert jwk["kid"] == thumbprint(jwk) == ring.active_kid
    expected = {"kty", "crv", "x", "kid", "alg", "use"} | ({"y"} if algorithm == "ES256" else set[str]())
    assert set(jwk) == expected
    assert (jwk["alg"], jwk["use"]) == (algorithm, "sig")


def test_others_can_verify_what_we_sign_with_what_we_publish(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    header, payload, signature = ring.sign(b'{"sub":"x"}', "at+jwt").split(".")
    (jwk,) = ring.public_jwks(NOW_US)["keys"]
    key = Ed25519PublicKey.from_public_bytes(decoded(str(jwk["x"])))
    key.verify(decoded(signature), f"{header}.{payload}".encode())
    assert json.loads(decoded(header)) == {"alg": "EdDSA", "kid": ring.active_kid, "typ": "at+jwt"}
    assert decoded(payload) == b'{"sub":"x"}'


@ALGORITHMS
def test_a_rotation_signs_with_a_fresh_key_and_still_verifies_with_the_old_one(tmp_path: Path, algorithm: str) -> None:
    ring = KeyRing.open(tmp_path / "keys", algorithm, NOW_US)
    old = ring.active_kid
    new = ring.rotate(NOW_US)
    assert new == ring.active_kid != old
    assert ring.verification_key(new, NOW_US + 100 * GRACE_US) is not None
    assert ring.verification_key(old, NOW_US + GRACE_US - 1) is not None
    assert ring.verification_key(old, NOW_US + GRACE_US) is None
    assert [key["kid"] for key in ring.public_jwks(NOW_US)["keys"]] == [new, old]
    assert [key["kid"] for key in ring.public_jwks(NOW_US + GRACE_US)["keys"]] == [new]


def test_the_private_part_of_a_rotated_key_leaves_the_disk_at_once(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    private = stored(tmp_path / "keys")[0]["d"]
    ring.rotate(NOW_US)
    assert private not in (tmp_path / "keys" / "signing.json").read_text()
    assert ["d" in key for key in stored(tmp_path / "keys")] == [True, False]


def test_pruning_forgets_what_verifies_nothing_and_keeps_the_rest(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    first = ring.active_kid
    second = ring.rotate(NOW_US)
    third = ring.rotate(NOW_US + MINUTE_US)
    assert ring.prune(NOW_US + MINUTE_US) == ()
    assert ring.prune(NOW_US + GRACE_US) == (first,)
    assert [key["kid"] for key in stored(tmp_path / "keys")] == [third, second]
    assert ring.prune(NOW_US + 10 * GRACE_US) == (second,)
    assert ring.active_kid == third


def test_a_second_rotation_does_not_prolong_the_first_key(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    first = ring.active_kid
    ring.rotate(NOW_US)
    ring.rotate(NOW_US + 10 * MINUTE_US)
    assert ring.verification_key(first, NOW_US + GRACE_US) is None


def test_a_revoked_key_verifies_nothing_from_then_on(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    leaked = ring.active_kid
    fresh = ring.revoke(leaked)
    assert fresh != leaked
    assert ring.verification_key(leaked, NOW_US) is None
    assert ring.verification_key(fresh, NOW_US) is not None
    with pytest.raises(IdentityError) as caught:
        ring.revoke(leaked)
    assert caught.value.code == "token_unknown_key"


def test_what_one_process_rotates_or_revokes_holds_in_another(tmp_path: Path) -> None:
    ours = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    theirs = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    old = ours.active_kid
    assert ours.verification_key(old, NOW_US) is not None
    new = theirs.rotate(NOW_US)
    assert ours.verification_key(new, NOW_US) is not None, "a new key is known at once"
    assert ours.active_kid == new, "and signs at once"
    theirs.revoke(old)
    assert ours.verification_key(old, NOW_US + LOOK_AGAIN_US) is None


def test_another_algorithm_in_the_project_rotates_to_it_and_the_old_key_still_verifies(
    tmp_path: Path,
) -> None:
    old = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US).active_kid
    ring = KeyRing.open(tmp_path / "keys", "ES256", NOW_US)
    active = ring.verification_key(ring.active_kid, NOW_US)
    before = ring.verification_key(old, NOW_US)
    assert active is not None
    assert before is not None
    assert (active.algorithm, before.algorithm) == ("ES256", "EdDSA")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "eddsa", ""])
def test_other_algorithms_are_refused_before_anything_is_made(tmp_path: Path, algorithm: str) -> None:
    with pytest.raises(IdentityError, match="choose `EdDSA` or `ES256`"):
        KeyRing.open(tmp_path / "keys", algorithm, NOW_US)
    assert list(tmp_path.iterdir()) == []


def open_at_once(folder: str, barrier: Barrier, found: multiprocessing.Queue[tuple[str, bytes, bytes]]) -> None:
    barrier.wait(60)
    ring = KeyRing.open(Path(folder), "ES256", NOW_US)
    found.put((ring.active_kid, master_key(Path(folder)).reveal(), pseudonym_key(Path(folder)).reveal()))


def test_processes_that_make_the_keys_at_the_same_time_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(3), context.Queue()
    workers = [context.Process(target=open_at_once, args=(str(tmp_path / "keys"), barrier, found)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = {found.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert len(answers) == 1
    ((kid, master, pseudonym),) = answers
    assert kid == KeyRing.open(tmp_path / "keys", "ES256", NOW_US).active_kid
    assert len(master) == len(pseudonym) == 32
    assert master != pseudonym


def rotate_often(folder: str, barrier: Barrier) -> None:
    ring = KeyRing.open(Path(folder), "EdDSA", NOW_US)
    barrier.wait(60)
    for _ in range(5):
        ring.rotate(NOW_US)


def test_rotations_in_several_processes_lose_no_key(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=rotate_often, args=(str(tmp_path / "keys"), barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len({key["kid"] for key in stored(tmp_path / "keys")}) == 1 + 3 * 5


def without(name: str) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda keys: [{key: value for key, value in keys[0].items() if key != name}]


DAMAGE: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "no keys": lambda _: [],
    "two private keys": lambda keys: [keys[0], keys[0]],
    "no private key": without("d"),
    "another name": lambda keys: [{**keys[0], "kid": "A" * 43}],
    "another algorithm": lambda keys: [{**keys[0], "alg": "ES256"}],
    "another curve": lambda keys: [{**keys[0], "crv": "Ed448"}],
    "a symmetric key": lambda keys: [{**keys[0], "kty": "oct"}],
    "an unknown member": lambda keys: [{**keys[0], "jku": "https://evil.example"}],
    "a public part that is not the private one's": lambda keys: [{**keys[0], "kid": "B" * 43, "x": "A" * 43}],
    "a private part cut short": lambda keys: [{**keys[0], "d": keys[0]["d"][:-4]}],
    "a list where a text belongs": lambda keys: [{**keys[0], "x": [1]}],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_ring_is_refused_and_stays_as_it_is(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "keys"
    KeyRing.open(folder, "EdDSA", NOW_US)
    path = folder / "signing.json"
    path.write_text(json.dumps({"keys": DAMAGE[damage](stored(folder))}))
    before = path.read_bytes()
    with pytest.raises(IdentityError, match="is damaged: ") as caught:
        KeyRing.open(folder, "EdDSA", NOW_US)
    assert caught.value.code == "key_damaged"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"keys": 1}', b"null"])
def test_a_ring_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "keys"
    KeyRing.open(folder, "EdDSA", NOW_US)
    (folder / "signing.json").write_bytes(content)
    with pytest.raises(IdentityError) as caught:
        KeyRing.open(folder, "EdDSA", NOW_US)
    assert caught.value.code == "key_damaged"


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"ab" * 33, b"g" * 64, b"AB" * 32, b"\x00" * 32])
def test_a_damaged_master_key_is_refused_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    master_key(tmp_path / "keys")
    path = tmp_path / "keys" / "master.key"
    path.write_bytes(content)
    with pytest.raises(IdentityError, match="put back the file") as caught:
        master_key(tmp_path / "keys")
    assert caught.value.code == "key_damaged"
    assert path.read_bytes() == content


def test_a_ring_whose_file_is_exposed_or_gone_signs_and_verifies_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ring = KeyRing.open(folder, "EdDSA", NOW_US)
    kid = ring.active_kid
    (folder / "signing.json").chmod(0o644)
    with pytest.raises(IdentityError) as caught:
        KeyRing.open(folder, "EdDSA", NOW_US)
    assert caught.value.code == "file_exposed"
    (folder / "signing.json").unlink()
    with pytest.raises(IdentityError) as caught:
        ring.sign(b"{}", "at+jwt")
    assert caught.value.code == "file_missing"
    with pytest.raises(IdentityError):
        ring.verification_key(kid, NOW_US + LOOK_AGAIN_US)


def shown(value: object) -> str:
    return f"{value!r} {value} {value:}" if type(value).__format__ is object.__format__ else f"{value!r} {value}"


@ALGORITHMS
def test_nothing_private_has_a_readable_form(tmp_path: Path, algorithm: str) -> None:
    folder = tmp_path / "keys"
    ring = KeyRing.open(folder, algorithm, NOW_US)
    ring.sign(b"{}", "at+jwt")
    master = master_key(folder)
    private = stored(folder)[0]["d"]
    public = ring.verification_key(ring.active_kid, NOW_US)
    console = Console(file=io.StringIO(), width=400)
    console.print(ring, master, public, vars(ring))
    assert isinstance(console.file, io.StringIO)
    text = shown(ring) + shown(master) + shown(public) + repr(vars(ring)) + console.file.getvalue()
    assert private not in text
    assert master.reveal().hex() not in text
    assert repr(master.reveal()) not in text


def test_keys_refuse_to_be_pickled_or_copied(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", "EdDSA", NOW_US)
    ring.sign(b"{}", "at+jwt")
    for value in (ring, master_key(tmp_path / "keys"), vars(ring)):
        for attempt in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="can't be"):
                attempt(value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_most_talkative_traceback_of_a_damaged_ring_holds_nothing_private(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "keys"
    KeyRing.open(folder, "EdDSA", NOW_US)
    private = stored(folder)[0]["d"]
    (folder / "signing.json").write_text(json.dumps({"keys": DAMAGE[damage](stored(folder))}))
    with pytest.raises(IdentityError) as caught:
        KeyRing.open(folder, "EdDSA", NOW_US)
    assert private[:8] not in traceback_with_locals(caught.value)


def test_the_most_talkative_traceback_of_a_damaged_master_key_holds_nothing_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    master_key(folder)
    (folder / "master.key").write_bytes(b"c0ffee" * 10)
    with pytest.raises(IdentityError) as caught:
        master_key(folder)
    assert "c0ffee" not in traceback_with_locals(caught.value)


def traceback_with_locals(error: BaseException) -> str:
    """As a command line with rich tracebacks prints it, leaving out the frame of the test itself."""
    assert error.__traceback__ is not None
    within = error.__traceback__.tb_next
    console = Console(file=io.StringIO(), width=4_000)
    console.print(Traceback.from_exception(type(error), error, within, show_locals=True, locals_max_string=10_000))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "locals" in text
    return text
