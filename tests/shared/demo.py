"""The demo's checkpoints."""

from pathlib import Path

FOLD0 = Path(__file__).resolve().parents[2] / "demo" / "checkpoints" / "fold0"
BOTH = ["demo/checkpoints/fold0", "demo/checkpoints/fold1"]
