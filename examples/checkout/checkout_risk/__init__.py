"""What the checkout service and its agents share: orders, the risk model, load, comparison."""

import os

# Before numpy loads: each score runs on one core, so that concurrent requests share the cores
# fairly and an agent with a memory limit does not map one work area for each core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
