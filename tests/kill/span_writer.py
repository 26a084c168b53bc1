"""An agent that writes causal spans without end and prints the id of each acknowledged one."""

import threading
from typing import Any

from clearance_sdk import ClearanceError, attempt

PAUSE_SECONDS = 0.2
SPANS_A_TURN = 5


def main() -> None:
    """Until it is ended from outside."""
    wait = threading.Event()
    with attempt() as run:
        print("began", flush=True)
        cause = None
        while True:
            ids, cause = write_some(run, cause)
            try:
                run.flush()
            except ClearanceError as error:  # not acknowledged: nothing is claimed of these
                print(f"not acknowledged: {error}", flush=True)
            else:
                print("acknowledged", *ids, flush=True)
            wait.wait(PAUSE_SECONDS)


def write_some(run: Any, cause: Any) -> tuple[list[str], Any]:
    """A few actions, each for the observation before it; the ids of the spans."""
    ids = []
    for number in range(SPANS_A_TURN):
        cause = run.observe(
            "level", aggregate="last", value=float(number), unit="%", samples=1, because=cause
        )
        ids.append(cause.span_id)
        with run.action("act_on_level", because=cause, confidence=0.5) as act:
            ids.append(act.span_id)
            cause = act
    return ids, cause


if __name__ == "__main__":
    main()
