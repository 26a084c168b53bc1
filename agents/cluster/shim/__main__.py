"""`python -m agents.cluster.shim DIRECTORY`: run the workload kept in that directory."""

import sys

from .entry import main

if __name__ == "__main__":
    main(sys.argv[1])
