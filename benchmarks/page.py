"""How soon a report page is there, and how fast it answers, in Chromium.

    python -m benchmarks.page --out benchmarks/results/page-cpu.json

A page of 1,000 rows of the demo's test table (its rows taken again and again, with other ids), opened several times.
"""

import json
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

import scoring
from scoring.files.writing import write_json
from scoring.inputs.questions import read_table
from scoring.report.page import write_report
from scoring.scores.folder import write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.stats.calibration import Calibration

DEMO = Path(__file__).resolve().parent.parent / "demo"
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update".split()
SEARCH = """(text) => new Promise((done) => {
  const field = document.getElementById("search"), start = performance.now();
  field.value = text; field.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""
SORT = """(order) => new Promise((done) => {
  const field = document.getElementById("sort"), start = performance.now();
  field.value = order; field.dispatchEvent(new Event("change"));
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def scores_folder(out: Path, rows: int) -> Path:
    """A SCORES folder of so many rows with the demo's pictures and texts, and logits drawn at random."""
    known = read_table(DEMO / "test.csv").questions
    questions = [replace(known[at % len(known)], id=f"row{at:06d}", row=at + 1) for at in range(rows)]
    rng, shape = np.random.default_rng(0), (rows, 2, 1)
    z = rng.normal(0, 2, (*shape, 4)).astype(np.float32)
    ids = [question.id for question in questions]
    logits = OptionLogits(ids, ["a", "b"], z, np.ones(shape, np.float32), np.ones(shape, np.int64), ["ok"] * rows)
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_results(out, questions, logits, [Calibration()] * 2)
    entries = [{"member": name, "temperature": 1.0} for name in ("a", "b")]
    write_json(out / "run.json", {"checkpoints": entries, "identity": {"letters": "abcd", "orders": "1"}})
    return out


@click.command()
@click.option("--rows", default=1000, show_default=True)
@click.option("--repeats", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(rows: int, repeats: int, out: Path | None) -> None:
    """Write a page, open it, search and sort."""
    from playwright.sync_api import sync_playwright

    found = {
        "rows": rows,
        "versions": scoring.versions(),
        "first_paint_ms": [],
        "loaded_ms": [],
        "search_ms": [],
        "sort_ms": [],
    }
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        scores = scores_folder(Path(folder) / "scores", rows)
        start = time.perf_counter()
        path = write_report(scores, limit=rows)
        found |= {"seconds_to_write": time.perf_counter() - start, "bytes": path.stat().st_size}
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        found["browser"] = f"Chromium {browser.version}"
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri(), wait_until="load")
            found["first_paint_ms"].append(page.evaluate(PAINT))
            found["loaded_ms"].append(page.evaluate(LOADED))
            found["search_ms"].append(page.evaluate(SEARCH, "row0009"))
            page.evaluate(SEARCH, "")
            found["sort_ms"].append(page.evaluate(SORT, "sure"))
            page.close()
        browser.close()
    for name in ("first_paint_ms", "loaded_ms", "search_ms", "sort_ms"):
        click.echo(f"{name:<16}{statistics.median(found[name]):8.0f}   (most {max(found[name]):.0f})")
    click.echo(f"{found['bytes'] / 1e6:.2f} MB, written in {found['seconds_to_write']:.1f} s")
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
