"""Programs that measure the product: its speed, its memory, its exactness, and what its statistics are worth.

    python -m benchmarks.throughput                the demo, on two cores
    python -m benchmarks.throughput --help         what can be chosen

Every program starts with what it measures and how to run it. Result files are in `benchmarks/results/`; what follows
from them is in `benchmarks/LOG.md`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"


def cli_command(*arguments: object) -> list[str]:
    """`python cli.py ARGUMENTS`, for subprocess."""
    return [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
