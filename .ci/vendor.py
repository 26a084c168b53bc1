"""Check `static/vendor` against its lock file: every file listed, with licence, and unchanged.

The lock file `lock.json` holds {"files": [{"path", "name", "version", "licence", "sha256"}, …]};
paths are relative to the folder.
"""

import hashlib
import json
import sys
from pathlib import Path

LOCK = "lock.json"
FIELDS = ("path", "name", "version", "licence", "sha256")


def problems(folder: Path) -> list[str]:
    """Every difference between the folder and its lock file, as sentences."""
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }
    if not present:
        return []
    if not (folder / LOCK).exists():
        return [f"{folder / LOCK} is missing, but there are {len(present)} vendored files."]
    entries = json.loads((folder / LOCK).read_text(encoding="utf-8"))["files"]
    found = []
    for entry in entries:
        if missing := [name for name in FIELDS if not entry.get(name)]:
            found.append(f"{entry.get('path')}: the lock file does not give {', '.join(missing)}.")
        elif entry["path"] not in present:
            found.append(f"{entry['path']} is in the lock file but not in {folder}.")
        elif hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() != entry["sha256"]:
            found.append(f"{entry['path']} is not the file the lock file names (SHA-256 differs).")
    unlisted = sorted(present - {entry.get("path") for entry in entries})
    return found + [f"{path} is not in the lock file." for path in unlisted]


if __name__ == "__main__":
    differences = problems(Path(sys.argv[1]))
    print("\n".join(differences), file=sys.stderr, end="\n" if differences else "")  # noqa: T201
    sys.exit(1 if differences else 0)
