"""How soon is a report page there, and how fast does it answer in Chromium?

    python -m benchmarks.page --out FILE

The page has 1,000 rows: those of the demo's test table, repeated under other ids. It is opened several times.
"""

import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

import scoring
from benchmarks import DEMO
from benchmarks.synthetic import write_scores
from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.report.page import write_report
from scoring.tables.reading import read_table

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


def demo_rows(count: int) -> list[Question]:
    """The demo's test rows, repeated until there are `count`, with ids of their own."""
    demo = read_table(DEMO / "test.csv").questions
    return [replace(demo[number % len(demo)], id=f"row{number:06d}", row=number + 1) for number in range(count)]


@click.command()
@click.option("--rows", default=1000, show_default=True, help="Rows of the page.")
@click.option("--repeats", default=7, show_default=True, help="How often the page is opened.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(rows: int, repeats: int, out: Path | None) -> None:
    """Write a page, open it, search it and sort it."""
    from playwright.sync_api import sync_playwright

    timings: dict[str, list[float]] = {"first_paint_ms": [], "loaded_ms": [], "search_ms": [], "sort_ms": []}
    report = {"rows": rows, "versions": scoring.versions(), **timings}
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        logits = np.random.default_rng(0).normal(0, 2, (rows, 2, 4))
        entries = [{"member": name, "temperature": 1.0} for name in ("a", "b")]
        scores = write_scores(Path(folder) / "scores", demo_rows(rows), logits, entries)
        start = time.perf_counter()
        path = write_report(scores, limit=rows)
        report |= {"seconds_to_write": time.perf_counter() - start, "bytes": path.stat().st_size}
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        report["browser"] = f"Chromium {browser.version}"
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri(), wait_until="load")
            timings["first_paint_ms"].append(page.evaluate(PAINT))
            timings["loaded_ms"].append(page.evaluate(LOADED))
            timings["search_ms"].append(page.evaluate(SEARCH, "row0009"))
            page.evaluate(SEARCH, "")
            timings["sort_ms"].append(page.evaluate(SORT, "sure"))
            page.close()
        browser.close()
    for name, milliseconds in timings.items():
        what = name.removesuffix("_ms").replace("_", " ")
        click.echo(f"{what:<14}{statistics.median(milliseconds):6.0f} ms   (slowest {max(milliseconds):.0f} ms)")
    click.echo(f"{report['bytes'] / 1e6:.2f} MB, written in {report['seconds_to_write']:.1f} s")
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
