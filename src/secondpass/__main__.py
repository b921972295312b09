"""`python -m secondpass`, for launchers that start a module: `torchrun -m secondpass train ...`."""

import sys

from secondpass.cli import main

if __name__ == "__main__":
    sys.exit(main())
