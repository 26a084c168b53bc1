"""The registry's contract: the twin always, the layout on disk, and a real registry if there."""

import base64
import hashlib
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured

from lineage.registry import open_registry
from lineage.registry.base import (
    ArtifactNotFound,
    ArtifactTooLarge,
    DigestMismatch,
    LayerSource,
    Registry,
    RegistryError,
    RegistryUnavailable,
    TagImmutable,
)
from lineage.registry.layout import LayoutRegistry
from lineage.registry.memory import MemoryRegistry
from lineage.registry.oci import OciRegistry

pytestmark = pytest.mark.contract

BIN = Path.home() / ".cache/clearance/bin"
WEIGHTS = "application/vnd.clearance.weights.v1"
MODEL = "application/vnd.clearance.model.v1+json"
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail("the registry did not start")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail("the registry did not listen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(name: str) -> Iterator[str]:
    program = BIN / name
    if not program.exists():
        pytest.skip(f"needs {name}: go install github.com/google/go-containerregistry/cmd/{name}")
    port = free_port()
    arguments = ["-port", str(port)]
    if name == "crane":
        arguments = ["registry", "serve", "--address", f"127.0.0.1:{port}"]
    process = subprocess.Popen([str(program), *arguments], stderr=subprocess.DEVNULL)
    try:
        wait_until_open(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def plain_host() -> Iterator[str]:
    """A real registry without the referrers API."""
    yield from serve("registry")


@pytest.fixture(scope="module")
def crane_host() -> Iterator[str]:
    """A real registry with the referrers API."""
    yield from serve("crane")


def make_oci(host: str, name: str) -> OciRegistry:
    safe = hashlib.sha256(name.encode()).hexdigest()[:12]
    return OciRegistry.from_url(f"oci://{host}/t{safe}?insecure=1")


@pytest.fixture(params=["memory", "layout", "plain_host", "crane_host"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param == "memory":
        yield MemoryRegistry()
    elif request.param == "layout":
        yield LayoutRegistry(tmp_path / "registry")
    else:
        client = make_oci(request.getfixturevalue(request.param), request.node.nodeid)
        yield client
        client.close()


def layer(content: bytes, title: str = "weights.bin") -> LayerSource:
    return LayerSource(io.BytesIO(content), WEIGHTS, title)


def pushed(registry: Registry, content: bytes = b"weights", **rest: object) -> str:
    return registry.push([layer(content)], artifact_type=MODEL, **rest).digest  # type: ignore[arg-type]


def test_push_then_read_back(registry: Registry) -> None:
    big = os.urandom(3_000_000)
    stored = registry.push(
        [layer(big), layer(b"{}", "config.json")],
        artifact_type=MODEL,
        annotations={"goal": "g1"},
    )
    assert stored == registry.stat(stored.digest)
    assert stored.size == len(big) + 2
    assert stored.annotations == {"goal": "g1"}
    assert [item.annotations["org.opencontainers.image.title"] for item in stored.layers] == [
        "weights.bin",
        "config.json",
    ]
    digest = stored.layers[0].digest
    assert digest == "sha256:" + hashlib.sha256(big).hexdigest()
    assert b"".join(registry.read_layer(digest, chunk_bytes=100_000)) == big
    content = registry.manifest(stored.digest)
    assert "sha256:" + hashlib.sha256(content).hexdigest() == stored.digest


def test_same_content_same_digest(registry: Registry) -> None:
    first = pushed(registry, annotations={"a": "1", "b": "2"})
    assert pushed(registry, annotations={"b": "2", "a": "1"}) == first
    assert pushed(registry, annotations={"a": "1"}) != first


def test_same_layer_twice_and_empty_layer(registry: Registry) -> None:
    stored = registry.push([layer(b"x"), layer(b"x", "copy"), layer(b"")], artifact_type=MODEL)
    assert [b"".join(registry.read_layer(item.digest)) for item in stored.layers] == [
        b"x",
        b"x",
        b"",
    ]


def test_cap_covers_all_layers_together(registry: Registry) -> None:
    assert registry.push([layer(b"12"), layer(b"34")], artifact_type=MODEL, max_bytes=4).size == 4
    with pytest.raises(ArtifactTooLarge, match="over the 1 bytes"):
        registry.push([layer(b"12"), layer(b"34")], artifact_type=MODEL, max_bytes=3)


def test_announced_digest_is_held(registry: Registry) -> None:
    right = hashlib.sha256(b"weights").hexdigest()
    assert pushed(registry, expected_digest=right) == pushed(
        registry, expected_digest=f"sha256:{right}"
    )
    with pytest.raises(DigestMismatch, match="announced"):
        pushed(registry, b"other", expected_digest=right)
    with pytest.raises(ArtifactNotFound):
        b"".join(registry.read_layer("sha256:" + hashlib.sha256(b"other").hexdigest()))


def test_tags_never_move(registry: Registry) -> None:
    first, second = pushed(registry, b"one"), pushed(registry, b"two")
    registry.tag("models/checkout", "v1", first)
    registry.tag("models/checkout", "v1", first)
    with pytest.raises(TagImmutable, match=first):
        registry.tag("models/checkout", "v1", second)
    registry.tag("models/checkout", "v2", second)
    registry.tag("models/checkout-2", "v1", second)
    assert registry.resolve("models/checkout", "v1") == first
    assert registry.tags("models/checkout") == {"v1": first, "v2": second}
    assert registry.tags("models/none") == {}


def test_referrers(registry: Registry) -> None:
    subject = pushed(registry)
    assert registry.referrers(subject) == []
    signed = registry.push([layer(b"sig")], artifact_type=SIGNATURE, subject=subject)
    other = registry.push([layer(b"sbom")], artifact_type=MODEL, subject=subject)
    assert signed.subject == subject
    found = {item.digest for item in registry.referrers(subject)}
    assert found == {signed.digest, other.digest}
    assert registry.referrers(subject, artifact_type=SIGNATURE) == [signed]
    with pytest.raises(ArtifactNotFound):
        registry.push([layer(b"s")], artifact_type=SIGNATURE, subject="sha256:" + "0" * 64)


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "", "latest", "sha256:../../etc/passwd"])
def test_unknown_is_not_found(registry: Registry, digest: str) -> None:
    for ask in (registry.stat, registry.manifest):
        with pytest.raises(ArtifactNotFound):
            ask(digest)
    with pytest.raises(ArtifactNotFound):
        b"".join(registry.read_layer(digest))
    with pytest.raises(ArtifactNotFound):
        registry.tag("models/x", "v1", digest)


def test_a_layer_is_no_artifact(registry: Registry) -> None:
    inner = registry.manifest(pushed(registry))
    stored = registry.push([layer(b"q" + inner)], artifact_type=MODEL)
    with pytest.raises(ArtifactNotFound):
        registry.stat(stored.layers[0].digest)


@pytest.mark.parametrize(
    ("repository", "tag"),
    [("Models", "v1"), ("../x", "v1"), ("a//b", "v1"), ("models", "v 1"), ("models", "x" * 129)],
)
def test_names_follow_the_grammar(registry: Registry, repository: str, tag: str) -> None:
    digest = pushed(registry)
    with pytest.raises(RegistryError):
        registry.tag(repository, tag, digest)
    with pytest.raises(RegistryError):
        registry.resolve(repository, tag)


def test_bad_media_types_and_no_layers(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="at least one layer"):
        registry.push([], artifact_type=MODEL)
    with pytest.raises(RegistryError, match="media type"):
        registry.push([layer(b"x")], artifact_type="nonsense")
    with pytest.raises(RegistryError, match="media type"):
        registry.push([LayerSource(io.BytesIO(b"x"), "", "t")], artifact_type=MODEL)


def test_layout_nothing_left_when_refused(tmp_path: Path) -> None:
    registry = LayoutRegistry(tmp_path)
    pushed(registry)
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(ArtifactTooLarge):
        registry.push([layer(b"a"), layer(b"b" * 99)], artifact_type=MODEL, max_bytes=50)
    with pytest.raises(DigestMismatch):
        pushed(registry, b"zz", expected_digest="0" * 64)
    assert sorted(path for path in tmp_path.rglob("*")) == before


class BreakingStream(io.RawIOBase):
    """An upload whose sender goes away."""

    def read(self, size: int = -1) -> bytes:
        raise ConnectionResetError("gone")


def test_layout_broken_upload_leaves_nothing(tmp_path: Path) -> None:
    registry = LayoutRegistry(tmp_path)
    broken = LayerSource(BreakingStream(), WEIGHTS, "w")  # type: ignore[arg-type]
    with pytest.raises(ConnectionResetError):
        registry.push([layer(b"a"), broken], artifact_type=MODEL)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert list((tmp_path / "blobs/sha256").iterdir()) == []


def test_layout_failed_commit_leaves_nothing(tmp_path: Path) -> None:
    """The last step of a push fails: what it had already put in place is taken away again."""
    registry = LayoutRegistry(tmp_path)
    kept = pushed(registry)
    index = tmp_path / "index.json"
    good = index.read_bytes()
    index.write_bytes(b"broken")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RegistryError, match="restore it"):
        pushed(registry, b"never stored")
    assert sorted(tmp_path.rglob("*")) == before
    index.write_bytes(good)
    assert registry.stat(kept).digest == kept


def test_layout_detects_changed_bytes(tmp_path: Path) -> None:
    registry = LayoutRegistry(tmp_path)
    stored = registry.push([layer(b"w" * 10_000)], artifact_type=MODEL)
    blob = tmp_path / "blobs/sha256" / stored.layers[0].digest[7:]
    blob.write_bytes(b"v" + b"w" * 9_999)
    chunks = registry.read_layer(stored.layers[0].digest, chunk_bytes=1000)
    assert sum(len(next(chunks)) for _ in range(9)) == 9_000
    with pytest.raises(DigestMismatch):
        next(chunks)
    pushed(registry, b"w" * 10_000)
    assert b"".join(registry.read_layer(stored.layers[0].digest)) == b"w" * 10_000
    manifest = tmp_path / "blobs/sha256" / stored.digest[7:]
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(DigestMismatch):
        registry.stat(stored.digest)


def test_layout_is_what_the_spec_says(tmp_path: Path) -> None:
    registry = LayoutRegistry(tmp_path)
    digest = pushed(registry)
    registry.tag("models/checkout", "v1", digest)
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    tagged = [entry for entry in index["manifests"] if "annotations" in entry]
    assert tagged[0]["annotations"] == {"org.opencontainers.image.ref.name": "models/checkout:v1"}


def test_layout_full_disk_is_unavailable() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small tmpfs")
    folder = Path(f"/tmp/clearance-full-{os.getpid()}")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("needs mount: a small tmpfs to fill")
    try:
        registry = LayoutRegistry(folder / "registry")
        small = pushed(registry, b"small")
        before = sorted(folder.rglob("*"))
        with pytest.raises(RegistryUnavailable, match="disk is full"):
            pushed(registry, os.urandom(1 << 20))
        assert sorted(folder.rglob("*")) == before
        assert registry.stat(small).digest == small
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def race_tags(root: Path, worker: int, outcomes: "multiprocessing.Queue[str]") -> None:
    registry = LayoutRegistry(root)
    digest = registry.push([layer(b"worker %d" % worker)], artifact_type=MODEL).digest
    for number in range(10):
        try:
            registry.tag("race", f"t{number}", digest)
            outcomes.put(f"t{number}")
        except TagImmutable:
            pass


def test_layout_processes_race_for_tags(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    outcomes: multiprocessing.Queue[str] = context.Queue()
    workers = [
        context.Process(target=race_tags, args=(tmp_path, number, outcomes)) for number in range(4)
    ]
    for process in workers:
        process.start()
    won = sorted(outcomes.get(timeout=30) for _ in range(10))
    for process in workers:
        process.join(30)
        assert process.exitcode == 0
    assert won == sorted(f"t{number}" for number in range(10))
    assert outcomes.empty()
    registry = LayoutRegistry(tmp_path)
    assert all(registry.stat(digest).layers for digest in registry.tags("race").values())


PUSHER = """
import io, pathlib, sys
from lineage.registry.base import LayerSource
from lineage.registry.layout import LayoutRegistry
registry = LayoutRegistry(pathlib.Path(sys.argv[1]))
for number in range(100000):
    body = (b"%d " % number) * 20000
    stored = registry.push(
        [LayerSource(io.BytesIO(body), "application/octet-stream", "w")],
        artifact_type="application/vnd.x.v1",
    )
    registry.tag("k", f"{sys.argv[2]}-{number}", stored.digest)
    print(stored.digest, flush=True)
"""


@pytest.mark.kill
def test_layout_survives_kill(tmp_path: Path) -> None:
    """Whatever was answered is there and whole after kill -9; leftovers are swept."""
    answered: list[str] = []
    for round_number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", PUSHER, str(tmp_path), str(round_number)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5 + round_number * 3)]
        answered.extend(line.decode().strip() for line in lines)
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
    registry = LayoutRegistry(tmp_path)
    for digest in answered:
        stored = registry.stat(digest)
        assert b"".join(registry.read_layer(stored.layers[0].digest))
    for digest in registry.tags("k").values():
        registry.stat(digest)
    pushed(registry, b"after")
    assert list((tmp_path / "uploads").iterdir()) == []


def test_oci_another_client_reads_it(crane_host: str) -> None:
    crane = BIN / "crane"
    if not crane.exists():
        pytest.skip("needs crane: go install go-containerregistry/cmd/crane")
    registry = make_oci(crane_host, "crane")
    digest = pushed(registry)
    registry.tag("models/checkout", "v1", digest)
    name = f"{registry._base_url.removeprefix('http://')}/{registry._prefix}/models/checkout:v1"
    seen = subprocess.run(
        [str(crane), "digest", "--insecure", name], capture_output=True, text=True, check=True
    )
    assert seen.stdout.strip() == digest
    checked = subprocess.run(
        [
            str(crane),
            "blob",
            "--insecure",
            f"{name.rpartition(':')[0]}@sha256:" + hashlib.sha256(b"weights").hexdigest(),
        ],
        capture_output=True,
        check=True,
    )
    assert checked.stdout == b"weights"
    registry.close()


class GuardedRegistry(BaseHTTPRequestHandler):
    """Asks for a token like a hosted registry, and answers blobs with bytes of its own choice."""

    body = b"weights"
    seen: ClassVar[list[str]] = []

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        host = f"http://127.0.0.1:{self.server.server_address[1]}"
        authorization = self.headers.get("Authorization", "")
        self.seen.append(f"{self.path.partition('?')[0]} {authorization.partition(' ')[0]}")
        if self.path.startswith("/token"):
            known = authorization == "Basic " + base64.b64encode(b"ada:secret").decode()
            self.answer(200 if known else 401, b'{"token":"good"}')
        elif authorization == "Bearer good":
            self.answer(200, self.body)
        else:
            asked = f'Bearer realm="{host}/token",service="r",scope="repository:p:pull"'
            self.answer(401, WWW_Authenticate=asked)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def guarded() -> Iterator[tuple[str, type[GuardedRegistry]]]:
    handler = type("Handler", (GuardedRegistry,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_oci_fetches_a_token(guarded: tuple[str, type[GuardedRegistry]]) -> None:
    host, handler = guarded
    registry = OciRegistry.from_url(f"oci://ada:secret@{host}/p?insecure=1")
    digest = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    assert b"".join(registry.read_layer(digest)) == b"weights"
    assert "/token Basic" in handler.seen
    assert handler.seen[-1].endswith("Bearer")
    registry.close()
    stranger = OciRegistry.from_url(f"oci://ada:wrong@{host}/p?insecure=1")
    with pytest.raises(RegistryError, match="REGISTRY_URL") as caught:
        b"".join(stranger.read_layer(digest))
    assert "wrong" not in str(caught.value)
    stranger.close()


def test_oci_bytes_that_do_not_match(guarded: tuple[str, type[GuardedRegistry]]) -> None:
    host, handler = guarded
    handler.body = b"weightz" * 100
    registry = OciRegistry.from_url(f"oci://ada:secret@{host}/p?insecure=1")
    digest = "sha256:" + hashlib.sha256(b"weights" * 100).hexdigest()
    with pytest.raises(DigestMismatch):
        b"".join(registry.read_layer(digest, chunk_bytes=10))
    with pytest.raises(DigestMismatch):
        registry.stat(digest)
    registry.close()


def test_oci_unreachable_is_unavailable() -> None:
    registry = OciRegistry.from_url(f"oci://user:hunter2@127.0.0.1:{free_port()}/x?insecure=1")
    with pytest.raises(RegistryUnavailable) as caught:
        registry.stat("sha256:" + "0" * 64)
    assert "hunter2" not in str(caught.value)
    registry.close()


def test_twin_fails_when_told() -> None:
    registry = MemoryRegistry()
    digest = pushed(registry)
    registry.fail_next(RegistryUnavailable("down"))
    with pytest.raises(RegistryUnavailable):
        registry.stat(digest)
    assert registry.stat(digest).digest == digest


def test_urls(tmp_path: Path) -> None:
    assert isinstance(open_registry("memory:", folder=tmp_path), MemoryRegistry)
    assert isinstance(open_registry("layout:", folder=tmp_path), LayoutRegistry)
    assert isinstance(open_registry(f"layout:{tmp_path}", folder=tmp_path), LayoutRegistry)
    assert isinstance(open_registry("oci://h:5000/p/q", folder=tmp_path), OciRegistry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["", "s3://x", "layout:relative", "oci:/x", "oci://host", "oci://h/p?x=1", "oci://h:pw@h:x/p"],
)
def test_unknown_urls_name_the_variable(url: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="REGISTRY_URL") as caught:
        open_registry(url, folder=tmp_path)
    assert "pw" not in str(caught.value)
