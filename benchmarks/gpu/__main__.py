"""``python -m benchmarks.gpu``: see ``kit``."""

import sys

from benchmarks.gpu.kit import main

if __name__ == "__main__":
    sys.exit(main())
