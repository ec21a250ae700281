"""One self-contained HTML page about a folder: what was run, how good it is, and the rows, with their pictures.

Nothing is loaded from anywhere when it is opened: styles, script, figures and pictures stand in the file, and a policy
in its head forbids the rest. Texts of cells pass through the template's escaping.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scoring.bench.summary import batch_sizes_text, batch_text, like_for_like_text
from scoring.files.reading import read_json
from scoring.files.writing import write_text
from scoring.report.figures import FigureViews, figures_of_bench, figures_of_scores
from scoring.report.rows import FILTERS, Row, rows_of_bench, rows_of_scores, thumbnails
from scoring.scores.evaluation import judge
from scoring.scores.folder import RunError, open_scores
from scoring.scores.suspects import read_flagged
from scoring.stats.comparison import verdict

ROWS, BYTES = 1_000, 5_000_000  # of a page; more rows may take more bytes
LEAST_FOR_PICTURES = 0.3  # of those bytes; longer texts mean fewer rows


@dataclass
class Table:
    """A table of the page: header, rows of cells, and what it is about."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass
class Headline:
    """A figure that stands at the top, with what it must be read beside."""

    name: str
    value: str
    beside: str = ""


@dataclass
class Page:
    """What a page shows, in this order."""

    title: str
    kind: str
    headlines: list[Headline]
    warnings: list[str]
    figures: list[FigureViews]
    tables: list[Table]
    rows: list[Row]
    total: int  # rows of the folder, shown or not
    run: dict[str, str]  # what was run


def write_report(folder: Path, out: Path | None = None, most: int = ROWS, progress: Callable | None = None) -> Path:
    """The page about a SCORES folder (of `score` or `ensemble`, evaluated or not) or a folder of `bench`; its path.

    most: rows that are shown. progress: `progress(total)` gives an object with `update(count)` and `close()`. Raises
    RunError where the folder is neither.
    """
    out = out or folder / "report.html"
    room = max(BYTES, BYTES * most // ROWS)
    while True:
        page = _page(folder, most)
        bare = len(_render(page, []).encode())
        if bare <= (1 - LEAST_FOR_PICTURES) * room or len(page.rows) < 10:
            break
        most = len(page.rows) // 2
    text = _render(page, thumbnails(page.rows, room - bare - 20 * len(page.rows), progress))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def _page(folder: Path, most: int) -> Page:
    if (folder / "bench.json").exists():
        return _of_bench(folder, most)
    if not (folder / "run.json").exists():
        raise RunError(
            f"{folder}: no run.json and no bench.json; expected a folder that `score`, `ensemble` or `bench` wrote"
        )
    return _of_scores(folder, most)


def _render(page: Page, pictures: list[str]) -> str:
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
        filters={name: (*FILTERS[name], count) for name, count in flags.items() if count},
        types=sorted({row.task_type for row in page.rows if row.task_type}),
        pictures=Markup(json.dumps(pictures)),  # data addresses alone: letters of base64
        style=_own("report.css"),
        script=_own("report.js"),
    )


def _own(name: str) -> Markup:
    """A file of ours, as it is."""
    return Markup((Path(__file__).parent / "assets" / name).read_text("utf-8"))


# ------------------------------------------------------------------ SCORES
def _of_scores(folder: Path, most: int) -> Page:
    scores = open_scores(folder)
    about, logits = scores.about, scores.logits
    metrics = _metrics(folder) or judge(scores)
    scored, total = int(logits.scored.sum()), len(logits.ids)
    headlines, tables = [], []
    if metrics:
        overall = metrics["overall"]
        headlines = [
            Headline("accuracy", f"{overall['accuracy']['value']:.1%}", _interval(overall["accuracy"], "{:.1%}")),
            Headline("NLL", f"{overall['nll']['value']:.3f}", _interval(overall["nll"])),
            Headline("Brier score", f"{overall['brier']['value']:.3f}", _interval(overall["brier"])),
            Headline(
                "calibration error",
                f"{overall['ece']['value']:.3f}",
                f"noise alone: {overall['ece']['floor_mean']:.3f}, up to {overall['ece']['floor_95']:.3f}",
            ),
        ]
        tables.append(_groups(metrics))
        if "ensemble" in metrics:
            tables.append(_members(metrics))
        if comparison := _comparison(folder):
            tables.append(comparison)
    headlines.append(Headline("rows scored", f"{scored:,}", f"of {total:,}"))
    suspects = read_flagged(folder) if (metrics or {}).get("suspects") else set()
    what = "ensemble" if len(logits.members) > 1 else "scores"
    return Page(
        f"{folder.name}: {what}",
        what,
        headlines,
        about.get("warnings", []),
        figures_of_scores(scores, metrics),
        tables,
        rows_of_scores(scores, most, suspects),
        total,
        _run_of_scores(about),
    )


def _metrics(folder: Path) -> dict | None:
    """What `evaluate` or `score` found, with the groups that were asked for."""
    return read_json(folder / "metrics.json")


def _interval(found: dict, form: str = "{:.3f}") -> str:
    return f"95 %: {form.format(found['low'])} to {form.format(found['high'])}"


FIGURES = ("rows", "accuracy", "95 %", "NLL", "Brier", "ECE", "noise, up to")


def _groups(metrics: dict) -> Table:
    rows = [["all", *_figures(metrics["overall"])]]
    for column, groups in metrics.get("by", {}).items():
        prefix = "" if column == "task_type" else f"{column}: "
        rows += [[prefix + name, *_figures(found)] for name, found in groups.items()]
    return Table("By task type" if len(rows) > 1 else "All rows", ["", *FIGURES], rows)


def _figures(found: dict) -> list[str]:
    right = found["accuracy"]
    return [
        f"{found['rows']:,}",
        f"{right['value']:.3f}",
        f"{right['low']:.3f} – {right['high']:.3f}",
        f"{found['nll']['value']:.3f}",
        f"{found['brier']['value']:.3f}",
        f"{found['ece']['value']:.3f}",
        f"{found['ece']['floor_95']:.3f}",
    ]


def _members(metrics: dict) -> Table:
    found = metrics["ensemble"]
    rows = [
        [
            part["member"],
            f"{part['weight']:.2f}",
            f"{part['accuracy']['value']:.3f}",
            f"{part['accuracy']['low']:.3f} – {part['accuracy']['high']:.3f}",
            f"{part['nll']['value']:.3f}",
            f"{part['ece']['value']:.3f}",
            f"{part['adds']['accuracy']:+.4f}",
            f"{-part['adds']['nll']:+.4f} ± {part['adds']['error']:.4f}",
        ]
        for part in found["members"]
    ]
    notes = [
        f"All members give the same answer in {found['agreement']['all_agree']:.0%} of rows.",
        f"The pool ({found['pool']['kind']}) against its best member, {found['best']}: "
        f"{verdict(found['pool_against_best'], (found['best'], 'the pool'))}.",
    ]
    notes += [
        f"{part['member']} hurts: leave it out, and the pool's NLL is {-part['adds']['nll']:.4f} lower."
        for part in found["members"]
        if part["adds"]["hurts"]
    ]
    header = ["member", "weight", "accuracy", "95 %", "NLL", "ECE", "adds: accuracy", "adds: NLL"]
    return Table("Members", header, rows, notes)


def _comparison(folder: Path) -> Table | None:
    """What `evaluate DIR OTHER` left."""
    found = read_json(folder / "comparison.json")
    if found is None:
        return None
    names = (found["first"], found["second"])
    right, loss = found["accuracy"], found["nll"]
    rows = [[name, f"{right[at]:.4f}", f"{loss[at]:.4f}"] for name, at in zip(names, ("first", "second"))]
    gains = [part["difference"] for part in (right, loss)]
    rows.append(
        ["difference", *(f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})" for gain in gains)]
    )
    notes = [f"{found['rows']:,} rows in both; exact McNemar p = {right['mcnemar_p']:.2g}. So {verdict(found, names)}."]
    return Table("Compared", ["", "accuracy", "NLL"], rows, notes)


def _run_of_scores(about: dict) -> dict[str, str]:
    identity, counts, seconds = about.get("identity", {}), about.get("counts", {}), about.get("seconds", {})
    members = [
        f"{entry['member']} ({entry.get('fingerprint') or 'no fingerprint'}, temperature {entry['temperature']:.3f})"
        for entry in about["checkpoints"]
    ]
    told = {
        "command": _command(about),
        "data": _data(about),
        "pooled from": ", ".join(about.get("sources", [])),
        "checkpoints": "; ".join(members),
        "base": f"{about['base']} ({identity.get('base')})" if about.get("base") else "",
        "weights": " ".join(str(identity[name]) for name in ("quantization", "dtype") if identity.get(name)),
        "device": identity.get("device", ""),
        "pixels": f"{identity['pixels']:,}" if identity.get("pixels") else "",
        "option orders": identity.get("orders", "1"),
        "rows": ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()),
        "seconds": ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in seconds.items() if value),
        "versions": _versions(about),
        "notes": "; ".join(about.get("notes", [])),
    }
    return {name: text for name, text in told.items() if text}


def _command(about: dict) -> str:
    return " ".join(about.get("command", []))


def _data(about: dict) -> str:
    data = about.get("data", {})
    return f"{data.get('file', '')} (SHA-256 {data['sha256'][:16]}…)" if data.get("sha256") else ""


def _versions(about: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items() if version)


# ------------------------------------------------------------------ bench
def _of_bench(folder: Path, most: int) -> Page:
    try:
        found = read_json(folder / "bench.json") or {}
        ways = found["ways"]
        if not all("title" in way and "cost" in way for way in ways.values()):
            raise KeyError("ways")
    except (KeyError, AttributeError, TypeError) as error:
        raise RunError(f"{folder / 'bench.json'}: not what `bench` writes ({error}); run it again") from None
    fast = ways.get("engine")
    headlines, warnings = [], []
    if fast:
        ratio = f"{fast['ratio']:.1f} times the notebook's way" if "ratio" in fast else ""
        headlines.append(Headline("engine, rows/s", f"{fast['rows_per_second']:.1f}", ratio))
        if fast["accuracy"]:
            right = fast["accuracy"]
            headlines.append(Headline("engine, accuracy", f"{right['value']:.1%}", _interval(right, "{:.1%}")))
    if "seed" in ways and ways["seed"]["accuracy"]:
        right = ways["seed"]["accuracy"]
        headlines.append(Headline("notebook, accuracy", f"{right['value']:.1%}", _interval(right, "{:.1%}")))
    if other := ways.get("seed", {}).get("against_engine"):
        p = other["mcnemar_p"]
        headlines.append(
            Headline(
                "notebook, another letter",
                f"{len(other['differ']):,}",
                f"of {found['rows']:,} rows" + (f"; McNemar p = {p:.2g}" if p is not None else ""),
            )
        )
    if check := found["first_token"]:
        headlines.append(
            Headline(
                "generation starts otherwise",
                f"{len(check['violations']):,}",
                f"of {check['top_is_a_label']:,} rows whose likeliest token is a letter (0 expected)",
            )
        )
        if check["violations"]:
            warnings.append(f"generation does not start with the likeliest token: {', '.join(check['violations'])}")
    warnings += [
        f"{way['title']}: {way['unsteady']:,} letters that another repeat did not repeat"
        for way in ways.values()
        if way["unsteady"]
    ]
    run = {
        "command": _command(found),
        "data": _data(found),
        "checkpoint": f"{found['checkpoint']} ({found['fingerprint'] or 'no fingerprint'})",
        "device": found["device"],
        "weights": f"{found['quantization']}, {found['dtype']}; the engine's in {found['weights']}"
        + (", layers compiled" if found["compiled"] else ""),
        "repeats": f"{found['repeats']}, interleaved; medians",
        "versions": _versions(found),
    }
    return Page(
        f"{folder.name}: benchmark",
        "benchmark",
        headlines,
        warnings,
        figures_of_bench(found),
        [_speed(found), _quality(found)],
        rows_of_bench(found, most),
        found["rows"],
        run,
    )


def _speed(found: dict) -> Table:
    ways, price = list(found["ways"].values()), found["price_per_hour"]
    columns = {
        "": [way["title"] for way in ways],
        "weights": [way.get("weights", "–") for way in ways],
        "batch": [batch_text(way) for way in ways],
        "rows/s": [f"{way['rows_per_second']:.1f}" for way in ways],
        "ratio": [_number(way.get("ratio")) for way in ways],
        "s a row, p50": [f"{way['seconds_per_row']['p50']:.3f}" for way in ways],
        "p95": [f"{way['seconds_per_row']['p95']:.3f}" for way in ways],
        "GPU GiB": [_number(way["peak_device_bytes"], 2**30) for way in ways],
        "host GiB": [_number(way["peak_host_bytes"], 2**30) for way in ways],
        "J a row": [_number(way["joules_per_row"]) for way in ways],
        f"hours for {ways[0]['cost']['rows']:,}": [f"{way['cost']['hours']:.2f}" for way in ways],
        f"at {price or 0:g} an hour": [_number(way["cost"]["money"]) for way in ways],
    }
    told = {name: cells for name, cells in columns.items() if any(cell != "–" for cell in cells)}
    notes = ["Of a batch, each row's share of its seconds. Memory of the host is the whole process's."]
    notes += filter(None, [like_for_like_text(found["ways"]), batch_sizes_text(found["ways"])])
    return Table("Speed and cost", list(told), [list(row) for row in zip(*told.values())], notes)


def _quality(found: dict) -> Table:
    rows = []
    for way in found["ways"].values():
        right, other = way["accuracy"], way.get("against_engine")
        p = other["mcnemar_p"] if other else None
        rows.append(
            [
                way["title"],
                f"{right['value']:.3f}" if right else "–",
                f"{right['low']:.3f} – {right['high']:.3f}" if right else "–",
                f"{way['nll']['value']:.3f}" if way["nll"] else "–",
                f"{way['unanswered']:,}",
                f"{way['fallbacks']:,}",
                f"{len(other['differ']):,}" if other else "",
                f"{p:.2g}" if p is not None else "",
            ]
        )
    header = ["", "accuracy", "95 %", "NLL", "no letter", 'fell back to "a"', "not the engine's letter", "McNemar p"]
    return Table("Answers", header, rows)


def _number(value: float | None, unit: float = 1) -> str:
    return "–" if value is None else f"{value / unit:.2f}"
