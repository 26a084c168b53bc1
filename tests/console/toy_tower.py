"""A tower of toy processes, run as a program of its own: `python -m tests.console.toy_tower`.

Reads one JSON object from standard input: `directory`, and `processes` as a list of
{name, code, depends_on, is_one_shot, is_essential, grace_seconds, ready_file}; `code` is Python.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from console.tower.child import Pace
from console.tower.logs import Terminal
from console.tower.preflight import Refused, tower_lock
from console.tower.specs import FileReady, ProcessSpec, Started
from console.tower.supervisor import Supervisor

PACE = Pace(backoff_first=0.05, backoff_cap=0.4, healthy_after=5.0, probe=0.02, memory_check=0.1)


def spec_of(raw: dict[str, Any]) -> ProcessSpec:
    ready_file = raw.get("ready_file")
    return ProcessSpec(
        name=raw["name"],
        argv=tuple(raw.get("argv") or (sys.executable, "-I", "-c", raw["code"])),
        ready=FileReady(Path(ready_file)) if ready_file else Started(),
        depends_on=tuple(raw.get("depends_on", ())),
        is_one_shot=raw.get("is_one_shot", False),
        is_essential=raw.get("is_essential", True),
        grace_seconds=raw.get("grace_seconds", 5.0),
        memory_max_bytes=raw.get("memory_max_bytes"),
    )


def main() -> int:
    request = json.load(sys.stdin)
    directory = Path(request["directory"])
    terminal = Terminal()
    supervisor = Supervisor(
        [spec_of(raw) for raw in request["processes"]],
        directory=directory,
        log_directory=directory,
        state_file=directory / "tower.json",
        terminal=terminal,
        on_ready=lambda _children: terminal.say("all ready"),
        pace=PACE,
    )
    try:
        with tower_lock(directory / "tower.lock", patience_seconds=0.2):
            return asyncio.run(supervisor.run())
    except Refused as refusal:
        print(refusal)
        return 1


if __name__ == "__main__":
    sys.exit(main())
