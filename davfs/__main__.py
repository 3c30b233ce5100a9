"""`python -m davfs` is the `davfs` command."""

import sys

from davfs.cli import main

if __name__ == "__main__":
    sys.exit(main())
