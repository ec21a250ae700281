"""`bench` as a function: one forward pass against generating text, on the same rows."""

from pathlib import Path

from scoring.errors import CallError

DEMO = Path(__file__).resolve().parents[2] / "demo"
DEMO_ROWS = 80


def rows_or_demo(data: Path | None, ckpt: str | None, limit: int | None) -> tuple[Path, str, int | None]:
    """(table, checkpoint, rows) of a benchmark: those of the repository's demo where no table is named.

    rows: the most to use; None for all. Raises CallError where there is no demo, or a table without checkpoint.
    """
    if data is not None:
        if ckpt is None:
            raise CallError("name the checkpoint with --ckpt")
        return data, ckpt, limit
    if not (DEMO / "test.csv").exists():
        raise CallError("the demo is not installed with the package; run bench from a clone, or give DATA and --ckpt")
    return DEMO / "test.csv", ckpt or str(DEMO / "checkpoints" / "fold0"), limit or DEMO_ROWS
