"""Uploaded packs are verified by both verifiers in a child that a hostile pack cannot trouble."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineage.evidence import sandbox
from lineage.evidence.pack import build_pack
from lineage.evidence.sandbox import Bounds, PackTooLarge, SandboxError, TooBusy, verify_upload
from lineage.signing.memory import MemorySigner
from tests.lineage.test_evidence import make_contents

IDENTITY = "https://clearance.test/evidence"


@pytest.fixture(scope="module")
def pack() -> bytes:
    signer = MemorySigner()
    return build_pack(make_contents(signer), signer=signer, identity=IDENTITY)


def test_a_good_pack_is_green_in_both(pack: bytes) -> None:
    report, second = verify_upload([pack[:1000], pack[1000:]])
    assert report.ok, report.steps
    assert (second.ok, second.said) == (True, "agrees in every step")
    assert len(report.fingerprint) == 64


def test_the_first_bad_record_is_named(pack: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        name = archive.getinfo("records.jsonl")
        start = pack.index(archive.read(name))
        line = archive.read(name).splitlines()[2]
    place = start + pack[start:].index(line) + line.index(b'"action":"') + 10
    changed = bytearray(pack)
    changed[place] ^= 1
    report, second = verify_upload([bytes(changed)])
    assert not report.ok
    assert report.first_bad is not None
    assert report.first_bad.position == 2
    assert not second.ok


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_pack_is_refused(content: bytes) -> None:
    report, second = verify_upload([content])
    assert not report.ok
    assert not second.ok


def test_more_than_the_page_takes_is_not_even_read() -> None:
    taken = []

    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            taken.append(1)
            yield b"12345678"

    with pytest.raises(PackTooLarge, match="clearance verify"):
        verify_upload(chunks(), bounds=Bounds(pack_bytes=10))
    assert len(taken) == 2


def test_a_verification_that_takes_too_much_is_ended(pack: bytes) -> None:
    with pytest.raises(SandboxError, match="did not end"):
        verify_upload([pack], bounds=Bounds(wall_seconds=0.01))
    with pytest.raises(SandboxError, match="more memory or processor time"):
        verify_upload([pack], bounds=Bounds(memory_bytes=64 << 20))


def test_only_so_many_at_once_and_the_turn_is_given_back(pack: bytes) -> None:
    held = [sandbox._turns.acquire(blocking=False) for _ in range(sandbox.AT_ONCE)]
    assert all(held)
    try:
        with pytest.raises(TooBusy):
            verify_upload([b"x"])
    finally:
        for _ in held:
            sandbox._turns.release()
    assert not verify_upload([b"x"])[0].ok


def test_nothing_of_the_pack_is_kept(
    pack: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert verify_upload([pack])[0].ok
    assert list(tmp_path.iterdir()) == []
