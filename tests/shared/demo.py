"""The demo and its checkpoints."""

from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "demo"
FOLD0 = DEMO / "checkpoints" / "fold0"
BOTH = ["demo/checkpoints/fold0", "demo/checkpoints/fold1"]
