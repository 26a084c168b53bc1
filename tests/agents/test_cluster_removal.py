"""What is kept of a workload goes from the disk, whatever its program did to its folders."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.console.real_tower import ROOT

STUBBORN = """
import os, sys
from pathlib import Path
from agents.cluster.local import _remove_tree

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)

root = Path(sys.argv[1]) / "gone"
for name, mode in (("closed", 0o000), ("read-only", 0o500), ("unreadable", 0o300)):
    folder = root / "workdir" / name
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    (folder / "deep").chmod(mode)
    folder.chmod(mode)
_remove_tree(root)
assert not root.exists(), sorted(root.rglob("*"))
"""


def test_folders_an_agent_closed_are_removed_all_the_same() -> None:
    """As somebody whom file modes bind: root may remove anything."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", STUBBORN, folder],
            cwd=ROOT,
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert list(Path(folder).iterdir()) == []
