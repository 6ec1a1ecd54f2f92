"""``python -m benchmarks``: run everything and rewrite ``results.json``."""

import sys

from benchmarks.run import main

sys.exit(main())
