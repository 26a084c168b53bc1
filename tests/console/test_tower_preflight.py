"""What the tower checks before it starts anything: each refusal names what is wrong and the fix."""

import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from console.tower.preflight import (
    Refused,
    check_ports,
    check_socket_path,
    keep_secret,
    open_data_directory,
    tower_lock,
)

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = """
import sys
from pathlib import Path
from console.tower.preflight import Refused, open_data_directory
try:
    open_data_directory(Path(sys.argv[1]), free_min_bytes=0)
except Refused as refusal:
    print(refusal)
"""
# Only after the imports: the other user may not be able to read this Python at all.
AS_NOBODY = REFUSAL.replace("try:", "import os; os.setgid(65534); os.setuid(65534)\ntry:")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_data_directory_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down"
    open_data_directory(path, free_min_bytes=0)
    assert mode(path) == 0o700
    assert {child.name for child in path.iterdir()} == {"run", "logs", "keys", "static"}
    assert all(mode(child) == 0o700 for child in path.iterdir())


def test_a_directory_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    open_data_directory(tmp_path, free_min_bytes=0)
    assert mode(tmp_path) == 0o700


def test_a_directory_of_somebody_else_is_refused() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can act as another user")
    # Outside pytest's own directories, which the other user could not even enter.
    with tempfile.TemporaryDirectory() as theirs:
        Path(theirs).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, theirs],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
    assert f"CLEARANCE_DATA={theirs}: not permitted: run `chown -R" in done.stdout


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(Refused, match="a file is in the way"):
        open_data_directory(path)


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        ("mount -o remount,ro {disk}", "the disk is read-only: remount it writable"),
        ("cat /dev/zero > {disk}/fill 2>/dev/null || true", "the disk is full: free space"),
    ],
)
def test_a_disk_that_cannot_be_written_is_refused(tmp_path: Path, fill: str, said: str) -> None:
    # A small disk of its own, in a mount namespace that goes with the process.
    make = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}"
    show = f"exec {sys.executable} -c '{REFUSAL}'"
    script = f"{make} || exit 77; {fill.format(disk=tmp_path)}; {show}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{script} {tmp_path}"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip(f"needs mount: {done.stderr.strip()}")
    assert done.stdout.startswith(f"CLEARANCE_DATA={tmp_path}: {said}, or set CLEARANCE_DATA")


def test_a_path_the_kernel_refuses_is_named() -> None:
    with pytest.raises(Refused, match=r"CLEARANCE_DATA=/proc/clearance: .*, or set CLEARANCE_DATA"):
        open_data_directory(Path("/proc/clearance"))


def test_a_disk_that_is_almost_full_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"only \d+ MiB are free and \d+ MiB are needed: free space"):
        open_data_directory(tmp_path, free_min_bytes=1 << 60)


def test_a_port_in_use_names_its_variable() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(Refused, match=rf"WEB_PORT={port} is already in use on 127\.0\.0\.1"):
            check_ports({"WEB_PORT": ("127.0.0.1", port)})
    check_ports({"WEB_PORT": ("127.0.0.1", port)})


def test_one_port_for_two_is_refused() -> None:
    both = ("127.0.0.1", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        both = probe.getsockname()
    with pytest.raises(Refused, match=rf"OTLP_PORT and WEB_PORT are both {both[1]}"):
        check_ports({"WEB_PORT": both, "OTLP_PORT": both})


def test_a_host_that_is_not_here_is_refused() -> None:
    with pytest.raises(Refused, match=r"WEB_PORT=8000 on 192\.0\.2\.1: .*correct the host"):
        check_ports({"WEB_PORT": ("192.0.2.1", 8000)})


def test_a_socket_path_the_kernel_cannot_hold_is_refused() -> None:
    check_socket_path(Path("/" + "x" * 106))
    with pytest.raises(Refused, match="longer than 107 bytes: set CLEARANCE_DATA"):
        check_socket_path(Path("/" + "x" * 107))


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "tower.lock"
    with tower_lock(path, patience_seconds=0):
        assert path.read_text().strip() == str(os.getpid())
        assert mode(path) == 0o600
        with (
            pytest.raises(Refused, match=rf"A tower \(pid {os.getpid()}\) already runs"),
            tower_lock(path, patience_seconds=0),
        ):
            pass
    with tower_lock(path, patience_seconds=0):
        pass


def test_a_workload_that_looks_at_the_lock_does_not_stop_a_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tower.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import fcntl, sys, time; file = open(sys.argv[1], 'w');"
         "fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(0.3)", str(path)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with tower_lock(path, patience_seconds=10):
            assert path.read_text().strip() == str(os.getpid())


def test_a_secret_is_made_once_and_only_for_us(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    keep_secret(path)
    first = path.read_text()
    assert len(first) >= 50
    assert mode(path) == 0o600
    path.chmod(0o644)
    keep_secret(path)
    assert path.read_text() == first
    assert mode(path) == 0o600
    assert [child.name for child in tmp_path.iterdir()] == ["secret_key"]
