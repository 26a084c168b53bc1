"""The signer's contract, and what tools that are not ours say to its bundles."""

import base64
import hashlib
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from lineage.merkle import MerkleTree, leaf_hash
from lineage.signing import open_signer
from lineage.signing.base import (
    Signer,
    SigningError,
    SigningUnavailable,
    VerificationFailed,
)
from lineage.signing.keys import DEFAULT_ISSUER
from lineage.signing.local import LocalSigner
from lineage.signing.log import TransparencyLog
from lineage.signing.memory import MemorySigner

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
AGENT = "spiffe://clearance.local/ns/default/sa/optimizer/goal/1/agent/optimizer"
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "weights.bin", "digest": {"sha256": "ab" * 32}}],
    "predicateType": "https://slsa.dev/provenance/v1",
    "predicate": {"buildDefinition": {"buildType": "https://clearance.local/attempt/v1"}},
}


@pytest.fixture(params=["memory", "local"])
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    return MemorySigner() if request.param == "memory" else LocalSigner(tmp_path / "signing")


def test_blob(signer: Signer) -> None:
    bundle = signer.sign_blob(b"weights", identity=AGENT)
    signer.verify_blob(b"weights", bundle, identity=AGENT)
    assert json.loads(bundle)["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    for payload, identity in ((b"other", AGENT), (b"weights", AGENT + "x")):
        with pytest.raises(VerificationFailed):
            signer.verify_blob(payload, bundle, identity=identity)


def test_digest_is_the_same_promise(signer: Signer) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    signer.verify_blob(b"weights", signer.sign_digest(digest, identity=AGENT), identity=AGENT)
    prefixed = signer.sign_digest(f"sha256:{digest}", identity=AGENT)
    signer.verify_blob(b"weights", prefixed, identity=AGENT)
    for wrong in ("", "abc", digest.upper(), digest + "0"):
        with pytest.raises(SigningError, match="64 hex digits"):
            signer.sign_digest(wrong, identity=AGENT)


def test_statement(signer: Signer) -> None:
    before = int(time.time())
    bundle = signer.sign_statement(STATEMENT, identity=AGENT)
    verified = signer.verify_statement(bundle, identity=AGENT)
    assert verified.statement == STATEMENT
    assert verified.identity == AGENT
    assert before <= verified.signed_at <= time.time()
    with pytest.raises(VerificationFailed):
        signer.verify_statement(bundle, identity=AGENT + "x")
    with pytest.raises(VerificationFailed):
        signer.verify_blob(b"weights", bundle, identity=AGENT)
    with pytest.raises(VerificationFailed):
        signer.verify_statement(signer.sign_blob(b"x", identity=AGENT), identity=AGENT)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": [{"name": "x"}]},
        {"predicateType": ""},
        {"predicate": {"x": float("nan")}},
        {"predicate": {"x": object()}},
        {"predicate": {"x": 2**60}},
    ],
)
def test_statement_must_be_one(signer: Signer, change: dict[str, Any]) -> None:
    with pytest.raises(SigningError, match="statement"):
        signer.sign_statement({**STATEMENT, **change}, identity=AGENT)


@pytest.mark.parametrize(
    "identity", ["", "someone", "spiffe://a b", "spiffe://ü/x", "x:\n", "s:" + "x" * 3000]
)
def test_identity_must_be_a_uri(signer: Signer, identity: str) -> None:
    with pytest.raises(SigningError, match="URI"):
        signer.sign_blob(b"x", identity=identity)


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from leaves(value, (*path, number))
    else:
        yield path


def flipped(text: str) -> str:
    """`text` with one character in the middle changed to another that base64 and digits allow."""
    middle = len(text) // 2
    return text[:middle] + ("1" if text[middle] != "1" else "2") + text[middle + 1 :]


def test_any_changed_field_fails(signer: Signer) -> None:
    signer.sign_blob(b"an earlier entry, so that there is an audit path", identity=AGENT)
    for bundle, verify in (
        (
            signer.sign_blob(b"w", identity=AGENT),
            lambda b: signer.verify_blob(b"w", b, identity=AGENT),
        ),
        (
            signer.sign_statement(STATEMENT, identity=AGENT),
            lambda b: signer.verify_statement(b, identity=AGENT),
        ),
    ):
        verify(bundle)
        paths = list(leaves(json.loads(bundle)))
        assert len(paths) > 12
        for path in paths:
            changed = json.loads(bundle)
            node = changed
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = flipped(node[path[-1]])
            with pytest.raises(VerificationFailed):
                verify(json.dumps(changed))


@pytest.mark.parametrize("bundle", ["", "{", "[]", "{}", "null", "[" * 100_000, '{"mediaType": 1}'])
def test_malformed_bundles(signer: Signer, bundle: str) -> None:
    with pytest.raises(VerificationFailed):
        signer.verify_blob(b"x", bundle, identity=AGENT)
    with pytest.raises(VerificationFailed):
        signer.verify_statement(bundle, identity=AGENT)


def test_another_authority_is_not_trusted(signer: Signer) -> None:
    foreign = MemorySigner()
    with pytest.raises(VerificationFailed):
        signer.verify_blob(b"x", foreign.sign_blob(b"x", identity=AGENT), identity=AGENT)
    with pytest.raises(VerificationFailed):
        signer.verify_note(foreign.sign_note("origin\n1\nroot\n"))


def test_another_issuer_is_not_trusted(tmp_path: Path) -> None:
    other = LocalSigner(tmp_path / "signing", issuer="https://elsewhere.example")
    bundle = other.sign_blob(b"x", identity=AGENT)
    other.verify_blob(b"x", bundle, identity=AGENT)
    with pytest.raises(VerificationFailed):
        LocalSigner(tmp_path / "signing").verify_blob(b"x", bundle, identity=AGENT)


def test_notes(signer: Signer) -> None:
    text = "clearance.local/journal\n3\nq83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=\n"
    note = signer.sign_note(text)
    assert signer.verify_note(note) == text
    assert signer.sign_note(text) == note
    raw = note.encode()
    for position in range(len(raw)):
        changed = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(VerificationFailed):
            signer.verify_note(changed.decode(errors="replace"))
    for wrong in (text, note + "x", note[:-1], note + note.splitlines()[-1] + "\n", ""):
        with pytest.raises(VerificationFailed):
            signer.verify_note(wrong)
    for wrong in ("", "no newline", "two\n\nparts\n", "tab\t\n"):
        with pytest.raises(SigningError):
            signer.sign_note(wrong)


def test_public_keys_hold_no_private_key(signer: Signer) -> None:
    files = signer.public_keys()
    assert set(files) == {
        "root.pem",
        "intermediate.pem",
        "log.pem",
        "ctlog.pem",
        "checkpoint.pem",
        "checkpoint.vkey",
    }
    everything = signer.trust_config() + signer.trusted_root() + "".join(files.values())
    assert "PRIVATE" not in everything
    name, hint, key = files["checkpoint.vkey"].strip().split("+", 2)
    raw = base64.b64decode(key)
    assert raw[0] == 1
    assert hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8] == hint


def make_model(folder: Path) -> Path:
    model = folder / "model"
    (model / "sub").mkdir(parents=True)
    (model / "sub" / "b.bin").write_bytes(b"b" * 100)
    (model / "sub-c").write_bytes(b"")
    (model / "a.json").write_text("{}")
    (model / ".gitignore").write_text("x")
    return model


def test_model(signer: Signer, tmp_path: Path) -> None:
    model = make_model(tmp_path)
    verified = signer.verify_statement(signer.sign_model(model, identity=AGENT), identity=AGENT)
    resources = verified.statement["predicate"]["resources"]
    assert [item["name"] for item in resources] == ["a.json", "sub/b.bin", "sub-c"]
    (model / "link").symlink_to("/etc/passwd")
    with pytest.raises(SigningError, match="link"):
        signer.sign_model(model, identity=AGENT)
    with pytest.raises(SigningError, match="not a directory"):
        signer.sign_model(tmp_path / "none", identity=AGENT)


def test_sigstore_command_line(tmp_path: Path) -> None:
    signer = LocalSigner(tmp_path / "signing")
    (tmp_path / "file").write_bytes(b"weights")
    (tmp_path / "bundle.json").write_text(signer.sign_blob(b"weights", identity=AGENT))
    (tmp_path / "trust.json").write_text(signer.trust_config())

    def verify(identity: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sigstore", "--trust-config", str(tmp_path / "trust.json")]
        command += ["verify", "identity", "--offline", "--bundle", str(tmp_path / "bundle.json")]
        command += ["--cert-identity", identity, "--cert-oidc-issuer", DEFAULT_ISSUER]
        command += [str(tmp_path / "file")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    good = verify(AGENT)
    assert good.returncode == 0, good.stderr
    assert "OK:" in good.stdout + good.stderr
    assert verify(AGENT + "x").returncode != 0
    (tmp_path / "file").write_bytes(b"weightz")
    assert verify(AGENT).returncode != 0


def test_model_signing_command_line(tmp_path: Path) -> None:
    probe = subprocess.run([sys.executable, "-c", "import model_signing"], capture_output=True)
    if probe.returncode:
        pytest.skip("needs model_signing: it imports OpenSSL, install pyopenssl")
    signer, model = LocalSigner(tmp_path / "signing"), make_model(tmp_path)
    (tmp_path / "model.sig").write_text(signer.sign_model(model, identity=AGENT))
    (tmp_path / "trust.json").write_text(signer.trust_config())
    command = [sys.executable, "-m", "model_signing", "verify", "sigstore"]
    command += ["--signature", str(tmp_path / "model.sig"), "--identity", AGENT]
    command += ["--trust_config", str(tmp_path / "trust.json")]
    command += ["--identity_provider", DEFAULT_ISSUER, str(model)]
    good = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert good.returncode == 0, good.stderr + good.stdout
    (model / "sub" / "b.bin").write_bytes(b"changed")
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


def test_keys_are_private(tmp_path: Path) -> None:
    signer = LocalSigner(tmp_path / "keys" / "signing")
    signer.sign_blob(b"x", identity=AGENT)
    folder = tmp_path / "keys" / "signing"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    (folder / "log.key").chmod(0o644)
    with pytest.raises(SigningError, match="chmod 600"):
        LocalSigner(folder).sign_blob(b"x", identity=AGENT)


def test_keys_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SigningUnavailable, match="cannot be used"):
        LocalSigner(tmp_path / "file" / "signing").sign_blob(b"x", identity=AGENT)
    folder = tmp_path / "signing"
    LocalSigner(folder).trust_config()
    (folder / "log.key").write_text("broken")
    with pytest.raises(SigningError, match="restore it"):
        LocalSigner(folder).sign_blob(b"x", identity=AGENT)


def test_constructor_opens_nothing(tmp_path: Path) -> None:
    LocalSigner(tmp_path / "signing")
    assert list(tmp_path.iterdir()) == []


def sign_many(
    folder: Path, worker: int, bundles: "multiprocessing.Queue[tuple[bytes, str]]"
) -> None:
    signer = LocalSigner(folder)
    for number in range(8):
        payload = b"%d/%d" % (worker, number)
        bundles.put((payload, signer.sign_blob(payload, identity=AGENT)))


def log_tree(folder: Path) -> MerkleTree:
    """The tree the entries themselves give."""
    log = TransparencyLog(folder / "log.sqlite3")
    tree = MerkleTree()
    for position in range(log.size()):
        body = log.entry(position)
        assert body is not None
        tree.append(leaf_hash(body))
    return tree


def test_processes_share_one_authority_and_log(tmp_path: Path) -> None:
    """First use by five processes at once: one set of keys, one log without a gap."""
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[tuple[bytes, str]] = context.Queue()
    folder = tmp_path / "signing"
    workers = [
        context.Process(target=sign_many, args=(folder, number, queue)) for number in range(5)
    ]
    for process in workers:
        process.start()
    made = [queue.get(timeout=60) for _ in range(40)]
    for process in workers:
        process.join(30)
        assert process.exitcode == 0
    signer = LocalSigner(folder)
    tree = log_tree(folder)
    positions = set()
    for payload, bundle in made:
        signer.verify_blob(payload, bundle, identity=AGENT)
        entry = json.loads(bundle)["verificationMaterial"]["tlogEntries"][0]
        proof = entry["inclusionProof"]
        positions.add(int(entry["logIndex"]))
        assert base64.b64decode(proof["rootHash"]) == tree.root(int(proof["treeSize"]))
    assert positions == set(range(40))
    assert [path.name for path in tmp_path.iterdir()] == ["signing"]


SIGNING_LOOP = """
import pathlib, sys
from lineage.signing.local import LocalSigner
signer = LocalSigner(pathlib.Path(sys.argv[1]))
while True:
    print(signer.sign_blob(b"x", identity="spiffe://clearance.local/x"), flush=True)
"""


@pytest.mark.kill
def test_log_survives_kill(tmp_path: Path) -> None:
    """What was answered before kill -9 is in the log, and the log is whole."""
    folder = tmp_path / "signing"
    answered: list[str] = []
    for lines in (1, 7, 20):
        process = subprocess.Popen(
            [sys.executable, "-c", SIGNING_LOOP, str(folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        answered += [process.stdout.readline().decode() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
    signer, tree = LocalSigner(folder), log_tree(folder)
    assert tree.size >= 28
    for bundle in answered:
        proof = json.loads(bundle)["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
        assert base64.b64decode(proof["rootHash"]) == tree.root(int(proof["treeSize"]))
    signer.verify_blob(
        b"x", signer.sign_blob(b"x", identity="spiffe://c/x"), identity="spiffe://c/x"
    )
    assert log_tree(folder).size == tree.size + 1


def test_fork_after_use(tmp_path: Path) -> None:
    """A prefork worker inherits an open signer and both go on signing."""
    signer = LocalSigner(tmp_path / "signing")
    signer.sign_blob(b"parent", identity=AGENT)
    inherited = signer._log._connection()

    def work() -> None:
        # SQLite forbids carrying a connection across a fork.
        assert signer._log._connection() is not inherited
        for _ in range(5):
            signer.sign_blob(b"child", identity=AGENT)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    for _ in range(5):
        signer.sign_blob(b"parent", identity=AGENT)
    child.join(30)
    assert child.exitcode == 0
    assert log_tree(tmp_path / "signing").size == 11


def test_log_proofs_stay_cheap() -> None:
    """The right edge is kept, so the 20,000th append costs what the 1,000th did."""
    log = TransparencyLog(None)

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for number in range(count):
            log.append(b"%d" % number)
        return time.perf_counter() - started

    seconds(1000)
    early = seconds(1000)
    seconds(17_000)
    assert seconds(1000) < early * 5


def test_twin_fails_when_told() -> None:
    signer = MemorySigner()
    calls: list[Callable[[], object]] = [
        lambda: signer.sign_blob(b"x", identity=AGENT),
        lambda: signer.sign_note("x\n"),
        lambda: signer.trust_config(),
    ]
    for call in calls:
        signer.fail_next(SigningUnavailable("down"))
        with pytest.raises(SigningUnavailable):
            call()
        call()


def test_urls(tmp_path: Path) -> None:
    assert isinstance(open_signer("memory:", folder=tmp_path), MemorySigner)
    assert type(open_signer("local:", folder=tmp_path)) is LocalSigner
    for url in ("", "local:/x", "kms://key", "pkcs11:token=x", "https://fulcio.example"):
        with pytest.raises(ImproperlyConfigured, match="SIGNING_URL"):
            open_signer(url, folder=tmp_path)
