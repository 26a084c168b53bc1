"""Check that each direct dependency is pinned by hash in the file compiled from it."""

import re
import sys
from pathlib import Path

NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def names(path: Path) -> list[str]:
    """Normalised project names, one for each requirement line (PEP 503)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = (NAME.match(line) for line in lines)
    return [re.sub(r"[-_.]+", "-", match[1]).lower() for match in matches if match]


def problems(root: Path) -> list[str]:
    """Every dependency that is missing from its lock file, or in it without a hash."""
    found = []
    for stem in ("requirements", "requirements-dev"):
        text = (root / f"{stem}.txt").read_text(encoding="utf-8")
        pinned = set(names(root / f"{stem}.txt"))
        missing = [name for name in names(root / f"{stem}.in") if name not in pinned]
        found += [f"{stem}.txt does not pin {name}: run `make lock`." for name in missing]
        for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
            if NAME.match(entry) and "--hash=sha256:" not in entry:
                found.append(f"{stem}.txt: {entry.splitlines()[0]} has no hash: run `make lock`.")
    return found


if __name__ == "__main__":
    differences = problems(Path(__file__).resolve().parent.parent)
    print("\n".join(differences), file=sys.stderr, end="\n" if differences else "")  # noqa: T201
    sys.exit(1 if differences else 0)
