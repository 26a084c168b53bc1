"""How long 10,000 nodes of provenance take to be put in layers."""

import random
import statistics
import time

from lineage.layering import lay_out

NODES = 10_000
LIMIT_MS = 1000.0
ROUNDS = 5


def graph(nodes: int = NODES) -> list[tuple[int, int]]:
    """Two causes for each node, among the 300 before it."""
    chance = random.Random(1)
    return [(chance.randrange(max(0, n - 300), n), n) for n in range(1, nodes) for _ in range(2)]


def run() -> dict[str, float]:
    """Median milliseconds of processor time of one layout."""
    edges = graph()
    spent: list[float] = []
    for _ in range(ROUNDS):
        start = time.process_time()
        layout = lay_out(range(NODES), edges)
        spent.append((time.process_time() - start) * 1000)
        assert len(layout.places) == NODES
    figures = {"nodes": float(NODES), "layout_ms": statistics.median(spent), "limit_ms": LIMIT_MS}
    print(
        f"layout of {NODES} nodes and {len(edges)} edges: {figures['layout_ms']:.0f} ms "
        f"({figures['layout_ms'] / LIMIT_MS:.2f} of the {LIMIT_MS:.0f} ms limit)"
    )
    return figures


if __name__ == "__main__":
    run()
