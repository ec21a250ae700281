"""Tables of the demo's first rows."""

import shutil
from pathlib import Path


def copy_rows(demo: Path, folder: Path, rows: int = 6, name: str = "small.csv") -> Path:
    """A table in `folder` of the first rows of the demo's test.csv, with their pictures."""
    lines = (demo / "test.csv").read_text("utf-8").splitlines()[: rows + 1]
    (folder / "images").mkdir(exist_ok=True)
    for line in lines[1:]:
        picture = line.split(",")[1]
        shutil.copy(demo / picture, folder / picture)
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
