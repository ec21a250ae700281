"""The report page: one self-contained HTML file about a folder of `score`, `ensemble`, `evaluate` or `bench`.

It shows what was run, how good it is, and the rows with their pictures. The browser loads nothing else: styles, script,
figures and pictures are in the file, and a policy in its head forbids other sources. The template escapes all texts.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scoring.benchmark.summary import ENGINE, NOTEBOOK
from scoring.files.reading import FileError, read_json
from scoring.files.writing import write_text
from scoring.messages import ProgressBar
from scoring.report.figures import FigureViews, figures_of_bench, figures_of_scores
from scoring.report.records import BenchRun, BenchWay, Comparison, Details, Estimate, Metrics, Systems, read_record
from scoring.report.rows import FILTERS, Row, rows_of_bench, rows_of_scores, thumbnails
from scoring.report.tables import Table, bench_tables, comparison_table, details_table, members_table, metrics_table
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.folder import RunError, RunRecord, TableEntry, open_scores
from scoring.scores.suspects import read_flagged

ROWS, BYTES = 1_000, 5_000_000  # of a page; more rows may take more bytes
LEAST_FOR_PICTURES = 0.3  # of those bytes; longer texts mean fewer rows
FEWEST_ROWS = 10  # a page with fewer is not made shorter, however long its texts


@dataclass(frozen=True)
class Headline:
    """A figure at the top of the page. beside: what it must be read with, such as its interval."""

    name: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Page:
    """What a page shows, in this order. total: rows of the folder, shown or not. run: what was run, by name."""

    title: str
    headlines: list[Headline]
    warnings: list[str]
    figures: list[FigureViews]
    tables: list[Table]
    rows: list[Row]
    total: int
    run: dict[str, str]


def write_report(
    folder: Path, out: Path | None = None, limit: int = ROWS, progress: Callable[[int], ProgressBar] | None = None
) -> Path:
    """Write the page about a SCORES folder (evaluated or not) or a folder of `bench`; its path.

    out: the page's file; FOLDER/report.html where it is None. limit: rows that are shown at most. progress: opens a
    progress bar of so many pictures. Raises RunError where the folder is neither, FileError where a file is damaged.
    """
    out = out or folder / "report.html"
    room = max(BYTES, BYTES * limit // ROWS)
    while True:
        page = _page(folder, limit)
        size = len(_render(page, {}).encode())
        if size <= (1 - LEAST_FOR_PICTURES) * room or len(page.rows) < FEWEST_ROWS:
            break
        limit = len(page.rows) // 2
    text = _render(page, thumbnails(page.rows, room - size - 20 * len(page.rows), progress))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def _page(folder: Path, limit: int) -> Page:
    if (folder / "bench.json").exists():
        return _page_of_bench(folder, limit)
    if not (folder / "run.json").exists():
        raise RunError(
            f"{folder}: no run.json and no bench.json; expected a folder that `score`, `ensemble` or `bench` wrote"
        )
    return _page_of_scores(folder, limit)


def _render(page: Page, pictures: dict[str, str]) -> str:
    """The page's HTML. pictures: data addresses by file; rows whose file is not among them have no picture."""
    environment = Environment(
        loader=PackageLoader("scoring.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    flags = {name: sum(name in row.flags for row in page.rows) for name in FILTERS}
    return environment.get_template("report.html").render(
        page=page,
        filters={name: (FILTERS[name], count) for name, count in flags.items() if count},
        types=sorted({row.task_type for row in page.rows if row.task_type}),
        numbers={file: number for number, file in enumerate(pictures)},
        pictures=Markup(json.dumps(list(pictures.values()))),  # safe: data addresses are letters of base64
        style=_asset("report.css"),
        script=_asset("report.js"),
    )


def _asset(name: str) -> Markup:
    """A file of the folder `assets`, not escaped."""
    return Markup((Path(__file__).parent / "assets" / name).read_text("utf-8"))


# ------------------------------------------------------------------ SCORES
def _page_of_scores(folder: Path, limit: int) -> Page:
    scores = open_scores(folder)
    run = scores.run
    values = read_json(folder / "metrics.json") or evaluate_scores(scores)
    metrics = read_record(Metrics, values, folder / "metrics.json") if values else None
    scored, total = int(scores.logits.scored.sum()), len(scores.logits.ids)
    suspects = read_flagged(folder) if metrics and metrics.suspects else set()
    return Page(
        title=f"{folder.name}: {'ensemble' if len(scores.logits.members) > 1 else 'scores'}",
        headlines=[
            *(_headlines_of_scores(metrics) if metrics else []),
            Headline("rows scored", f"{scored:,}", f"of {total:,}"),
        ],
        warnings=run.warnings,
        figures=figures_of_scores(scores, metrics),
        tables=_tables_of_scores(folder, metrics, values) if metrics and values else [],
        rows=rows_of_scores(scores, limit, suspects),
        total=total,
        run=_run_of_scores(run),
    )


def _headlines_of_scores(metrics: Metrics) -> list[Headline]:
    overall = metrics.overall
    return [
        Headline("accuracy", overall.accuracy.text(".1%"), _interval(overall.accuracy, ".1%")),
        Headline("NLL", overall.nll.text(), _interval(overall.nll)),
        Headline("Brier score", overall.brier.text(), _interval(overall.brier)),
        Headline(
            "calibration error",
            overall.ece.text(),
            f"noise alone: {overall.ece.floor_mean:.3f}, up to {overall.ece.floor_95:.3f}",
        ),
    ]


def _interval(estimate: Estimate, form: str = ".3f") -> str:
    return f"95 %: {estimate.interval(form)}"


def _tables_of_scores(folder: Path, metrics: Metrics, values: dict[str, Any]) -> list[Table]:
    """Metrics, further ones of a run in all cyclic orders, members where there are several, and the last comparison.

    values: metrics.json.
    """
    tables = [metrics_table(metrics)]
    if metrics.circular:
        tables.append(details_table(read_record(Details, values, folder / "metrics.json")))
    if metrics.ensemble:
        tables.append(members_table(metrics))
    path = folder / "comparison.json"
    if compared := read_json(path):
        systems, comparison = read_record(Systems, compared, path), read_record(Comparison, compared, path)
        tables.append(comparison_table(comparison, (systems.first, systems.second)))
    return tables


def _run_of_scores(run: RunRecord) -> dict[str, str]:
    identity = run.identity
    members = [
        f"{checkpoint.member} ({checkpoint.fingerprint or 'no fingerprint'}, temperature {checkpoint.temperature:.3f})"
        for checkpoint in run.checkpoints
    ]
    texts = {
        "command": " ".join(run.command),
        "data": _data_text(run.data),
        "pooled from": ", ".join(run.sources),
        "checkpoints": "; ".join(members),
        "base": f"{run.base} ({identity.base})" if run.base else "",
        "weights": " ".join(filter(None, [identity.quantization, identity.dtype])),
        "device": identity.device or "",
        "pixels": f"{identity.pixels:,}" if identity.pixels else "",
        "option orders": identity.orders,
        "rows": ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in run.counts.items()),
        "seconds": ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in run.seconds.items() if value),
        "versions": _versions_text(run.versions),
        "notes": "; ".join(run.notes),
    }
    return {name: text for name, text in texts.items() if text}


def _data_text(data: TableEntry) -> str:
    return f"{data.file} (SHA-256 {data.sha256[:16]}…)" if data.sha256 else ""


def _versions_text(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


# ------------------------------------------------------------------ bench
def _page_of_bench(folder: Path, limit: int) -> Page:
    path = folder / "bench.json"
    values = read_json(path) or {}
    try:
        bench = read_record(BenchRun, values, path)
    except FileError as error:
        raise RunError(f"{error}; expected what `bench` writes: run it again") from None
    tables = bench_tables(values)
    return Page(
        title=f"{folder.name}: benchmark",
        headlines=_headlines_of_bench(bench),
        warnings=[*_first_token_warnings(bench), *(text for table in tables for text in table.warnings)],
        figures=figures_of_bench(bench),
        tables=tables,
        rows=rows_of_bench(bench, limit),
        total=bench.rows,
        run=_run_of_bench(bench),
    )


def _headlines_of_bench(bench: BenchRun) -> list[Headline]:
    engine, notebook = bench.ways.get(ENGINE), bench.ways.get(NOTEBOOK)
    headlines = []
    if engine:
        ratio = f"{engine.ratio_text} as fast as the notebook" if engine.ratio_text else ""
        headlines.append(Headline("engine, rows/s", f"{engine.rows_per_second:.1f}", ratio))
        headlines += _accuracy_headline("engine", engine)
    if notebook:
        headlines += _accuracy_headline("notebook", notebook)
        if other := notebook.against_engine:
            p = "" if other.mcnemar_p is None else f"; McNemar p = {other.mcnemar_p:.2g}"
            headlines.append(
                Headline("notebook, another letter", f"{len(other.differ):,}", f"of {bench.rows:,} rows{p}")
            )
    if check := bench.first_token:
        headlines.append(
            Headline(
                "generation starts with another token",
                f"{len(check.violations):,}",
                f"of {check.top_is_a_label:,} rows whose likeliest token is a letter (0 expected)",
            )
        )
    return headlines


def _accuracy_headline(name: str, way: BenchWay) -> Iterable[Headline]:
    if way.accuracy:
        yield Headline(f"{name}, accuracy", way.accuracy.text(".1%"), _interval(way.accuracy, ".1%"))


def _first_token_warnings(bench: BenchRun) -> list[str]:
    if not bench.first_token or not bench.first_token.violations:
        return []
    return [f"generation does not start with the likeliest token: {', '.join(bench.first_token.violations)}"]


def _run_of_bench(bench: BenchRun) -> dict[str, str]:
    compiled = ", layers compiled" if bench.compiled else ""
    return {
        "command": " ".join(bench.command),
        "data": _data_text(bench.data),
        "checkpoint": f"{bench.checkpoint} ({bench.fingerprint or 'no fingerprint'})",
        "device": bench.device,
        "weights": f"{bench.quantization}, {bench.dtype}; the engine's in {bench.weights}{compiled}",
        "repeats": f"{bench.repeats}, interleaved; medians",
        "versions": _versions_text(bench.versions),
    }
