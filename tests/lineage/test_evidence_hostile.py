"""Packs made to hurt their verifiers: a failed step each time, never a traceback or a hang."""

import io
import json
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from lineage.evidence.base import PackContents
from lineage.evidence.inspect import inspect_pack
from lineage.evidence.pack import build_pack
from lineage.evidence.verify import verify
from lineage.signing.memory import MemorySigner
from tests.lineage.test_evidence import (
    TOWER,
    VERIFIER,
    both_refuse,
    make_contents,
    outcome,
    repacked,
    resealed,
)

DEEP = b"[" * 200_000
HUGE_NUMBER = b'{"format":' + b"9" * 200_000 + b"}"
BAD_JSON = {
    "not-json": b"{",
    "deep": DEEP,
    "deep-objects": b'{"a":' * 100_000,
    "huge-number": HUGE_NUMBER,
    "nan": b'{"format":NaN}',
    "infinity": b'{"format":-Infinity}',
    "huge-exponent": b'{"format":1e999999}',
    "not-utf8": b'{"format":"\xff\xfe"}',
    "utf16": '{"format":1}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"format":1}',
    "twice": b'{"format":1,"format":2}',
    "array": b"[]",
    "null": b"null",
    "empty": b"",
    "lone-surrogate": b'{"format":"\\ud800"}',
    "wrong-types": b'{"format":[],"goal":1,"files":"x","gaps":{},"records":null}',
    "terminal": b'{"format":"clearance.evidence/v1","gaps":["\\u001b[2J\\u202e"]}',
}


@pytest.fixture(scope="module")
def signer() -> MemorySigner:
    return MemorySigner()


@pytest.fixture(scope="module")
def contents(signer: MemorySigner) -> PackContents:
    return make_contents(signer)


@pytest.fixture(scope="module")
def pack(contents: PackContents, signer: MemorySigner) -> bytes:
    return build_pack(contents, signer=signer, identity=TOWER)


def refused_in_time(content: bytes, path: Path) -> None:
    started = time.monotonic()
    both_refuse(content, path)
    assert time.monotonic() - started < 20


JSON_FILES = (
    "manifest.json",
    "manifest.sigstore.json",
    "proof.json",
    "consistency.json",
    "keys/trusted_root.json",
    "keys/trust_config.json",
    "ledger.json",
    "decisions.json",
    "approvals.json",
    "releases.json",
    "bundles/weights.sigstore.json",
)


@pytest.mark.parametrize("bad", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_anywhere(bad: bytes, pack: bytes, tmp_path: Path) -> None:
    for name in JSON_FILES:
        refused_in_time(
            repacked(pack, lambda files, name=name: files.update({name: bad})), tmp_path / "p.zip"
        )


@pytest.mark.parametrize("bad", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_that_its_maker_sealed(
    bad: bytes, contents: PackContents, signer: MemorySigner, tmp_path: Path
) -> None:
    """With every digest and signature right, so that parsing itself is what is tested."""
    for name in ("proof.json", "consistency.json", "ledger.json", "releases.json"):
        changed = resealed(contents, signer, lambda files, name=name: files.update({name: bad}))
        refused_in_time(changed, tmp_path / "p.zip")
    changed = resealed(
        contents,
        signer,
        lambda files: files.update({"records.jsonl": bad + b"\n" + files["records.jsonl"]}),
    )
    refused_in_time(changed, tmp_path / "p.zip")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 2**60, "indexes": [1], "leaves": ["00" * 32], "siblings": []},
        {"size": -1, "indexes": [], "leaves": [], "siblings": []},
        {"size": 12, "indexes": ["0"], "leaves": ["00" * 32], "siblings": []},
        {"size": 12, "indexes": [0], "leaves": [0], "siblings": []},
        {"size": 12.0, "indexes": [], "leaves": [], "siblings": ["00" * 32]},
        {"size": True, "indexes": [], "leaves": [], "siblings": ["00" * 32]},
        {"size": 12, "indexes": [], "leaves": [], "siblings": ["zz"]},
        {"size": 12, "indexes": None, "leaves": None, "siblings": None},
    ],
)
def test_bad_proofs(
    change: object, contents: PackContents, signer: MemorySigner, tmp_path: Path
) -> None:
    changed = resealed(
        contents, signer, lambda files: files.update({"proof.json": json.dumps(change).encode()})
    )
    refused_in_time(changed, tmp_path / "p.zip")


def zipped(names: list[str], *, method: int = zipfile.ZIP_STORED, size: int = 1) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"x" * size, compress_type=method)
    return target.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ["../evil"],
        ["/etc/passwd"],
        ["a/../../evil"],
        ["C:\\evil"],
        ["a\nb"],
        ["manifest.json", "manifest.json"],
        [".hidden"],
        ["a" * 250],
        ["ü"],
        ["folder/"],
    ],
)
def test_unsafe_names(names: list[str], tmp_path: Path) -> None:
    refused_in_time(zipped(names), tmp_path / "p.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.zip"]


def test_compressed_bomb(tmp_path: Path) -> None:
    """100 MB of zeros in 100 kB: nothing is ever decompressed."""
    bomb = zipped(["manifest.json"], method=zipfile.ZIP_DEFLATED, size=100_000_000)
    assert len(bomb) < 200_000
    refused_in_time(bomb, tmp_path / "p.zip")


def test_sizes_that_lie(tmp_path: Path, pack: bytes) -> None:
    huge = bytearray(pack)
    struct.pack_into("<I", huge, 18, 0xFFFFFFFF)
    struct.pack_into("<I", huge, 22, 0xFFFFFFFF)
    refused_in_time(bytes(huge), tmp_path / "p.zip")
    # A directory whose members all overlap on the same bytes.
    body = b"x" * 1000
    local = struct.pack(
        "<IHHHHHIIIHH", 0x04034B50, 20, 0, 0, 0, 33, zlib.crc32(body), 1000, 1000, 1, 0
    )
    members = b"".join(
        struct.pack(
            "<IHHHHHHIIIHHHHHII",
            0x02014B50,
            20,
            20,
            0,
            0,
            0,
            33,
            zlib.crc32(body),
            1000,
            1000,
            5,
            0,
            0,
            0,
            0,
            0,
            0,
        )
        + b"%05d" % number
        for number in range(5000)
    )
    start = local + b"a" + body
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 5000, 5000, len(members), len(start), 0)
    refused_in_time(start + members + end, tmp_path / "p.zip")


def test_not_a_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.zip", tmp_path / "empty", Path("/dev/null")):
        assert not verify(str(path)).ok
        report = inspect_pack(path)
        assert not report.ok
        assert report.steps


def test_links_in_an_unpacked_pack(pack: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        archive.extractall(tmp_path / "out")
    target = tmp_path / "out" / "goal.json"
    target.rename(tmp_path / "goal.json")
    target.symlink_to(tmp_path / "goal.json")
    assert not verify(str(tmp_path / "out")).ok
    assert not inspect_pack(tmp_path / "out").ok


def test_a_pack_cannot_steer_the_terminal(
    contents: PackContents, signer: MemorySigner, tmp_path: Path
) -> None:
    from dataclasses import replace

    sly = replace(contents, gaps=["\x1b[2Jcleared \u202e and " + "long" * 5000])
    (tmp_path / "p.zip").write_bytes(build_pack(sly, signer=signer, identity=TOWER))
    shown = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(tmp_path / "p.zip")],
        capture_output=True,
        timeout=60,
    ).stdout
    assert b"\x1b" not in shown
    assert b"cleared" in shown
    assert len(shown) < 8000
    report = inspect_pack(tmp_path / "p.zip")
    assert report.ok
    assert all(gap.isprintable() for gap in report.gaps)


def test_odd_records_are_named_not_thrown(
    contents: PackContents, signer: MemorySigner, tmp_path: Path
) -> None:
    for line in (b"", b"1", b'{"seq":0}', b'{"seq":"x","action":[]}', b"\xff", b'{"seq":1e400}'):
        changed = resealed(
            contents,
            signer,
            lambda files, line=line: files.update(
                {"records.jsonl": line + b"\n" + files["records.jsonl"].split(b"\n", 1)[1]}
            ),
        )
        first, second, report = outcome(changed, tmp_path / "p.zip")
        assert not first["records"]
        assert not second["records"]
        assert report.first_bad is not None
        assert report.first_bad.position == 0
