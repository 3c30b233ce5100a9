"""`python -m tests.bench mounts ...`."""

from __future__ import annotations

import sys

from tests.bench.mounts import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
