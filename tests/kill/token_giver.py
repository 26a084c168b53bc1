"""An agent that leaves its bearer token in its working directory and computes until it is ended."""

import threading
from pathlib import Path

from clearance_sdk import attempt

EVERY_SECONDS = 0.2


def main() -> None:
    """Until it is ended from outside; the token in the file is always the newest."""
    wait = threading.Event()
    with attempt() as run:
        while True:
            draft = Path("token.new")
            draft.write_text(run.identity.token())
            draft.replace("token")
            wait.wait(EVERY_SECONDS)


if __name__ == "__main__":
    main()
