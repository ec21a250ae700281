"""The documents' figures are those of the committed result files that they come from.

A table (or block, or paragraph) that follows `<!-- figures: FILE -->` holds no number that FILE does not hold, rounded
as it is shown, but for what follows from its speeds; a row that names a way of the file, none that this way does not.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "demo" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# (document, files, text)
MARKED = [
    (path.relative_to(ROOT), *found)
    for path in DOCUMENTS
    for found in re.findall(
        r"<!-- figures: ([^>]+?) -->\n+(```.*?\n```|.*?)(?=\n\n(?!\|)|\n?\Z)", path.read_text("utf-8"), re.S
    )
]
NUMBER = re.compile(r"(?<![\w.,-])(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(e-\d+)?(?![\w])")


def numbers_in(value: object) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers_in(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def shown_in(text: str) -> list[tuple[float, int]]:
    """Numbers with a decimal point in a text, and how many decimals they show."""
    found = []
    for whole, decimals, exponent in NUMBER.findall(text):
        if decimals:
            value = float(f"{whole.replace(',', '') or 0}{decimals}{exponent}")
            found.append((value, len(decimals) - 1 - (int(exponent[1:]) if exponent else 0)))
    return found


def holds(known: list[float], value: float, decimals: int) -> bool:
    """Whether a number rounds to what is shown: as it is, in per cent, or as bytes in GiB."""
    near = 0.5001 * 10.0**-decimals
    return any(abs(abs(number) * factor - value) <= near for number in known for factor in (1, 100, 2.0**-30))


def from_speeds(value: object) -> Iterator[float]:
    """What follows from the speeds of a result file: how many times as fast one is as another, and what 100,000 rows
    take, in minutes and hours."""
    if isinstance(value, dict):
        ways = value.get("ways", [])
        ways = list(ways.values() if isinstance(ways, dict) else ways)
        speeds = [way["rows_per_second"] for way in ways if isinstance(way, dict) and way.get("rows_per_second")]
        yield from (one / other for one in speeds for other in speeds)
        yield from (100_000 / speed / seconds for speed in speeds for seconds in (60, 3600))
    for part in value.get("files", []) if isinstance(value, dict) else []:
        yield from from_speeds(part)


def scope(result: dict, line: str) -> object:
    """What of a result file a line of a document is about."""
    cell = line.split("|")[1].strip() if line.startswith("|") else ""
    ways = result.get("ways")
    if isinstance(ways, dict):
        named = [way for name, way in ways.items() if cell and name == cell]
        titled = [way for way in ways.values() if isinstance(way, dict) and "title" in way]
        named += [way for way in titled if cell == way["title"] or line.startswith(way["title"])]
        return named or result
    if isinstance(ways, list):
        return [way for way in ways if cell.startswith(f"`{way.get('orders')}`")] or result
    return result


def test_figures_are_marked():
    assert len(MARKED) >= 12 and len({file for _, file, _ in MARKED}) >= 10


@pytest.mark.parametrize("file, text", [pytest.param(*found, id=f"{path}: {found[0]}") for path, *found in MARKED])
def test_every_figure_is_in_its_result_file(file, text):
    results = [json.loads((ROOT / name).read_text("utf-8")) for name in file.split()]
    result = results[0] if len(results) == 1 else {"files": results}
    checked = 0
    for line in text.splitlines():
        known = [*numbers_in(scope(result, line)), *from_speeds(result)]
        cells = line.split("|", 2)[2] if line.startswith("|") else line  # the first names the row
        for value, decimals in shown_in(cells):
            assert holds(known, value, decimals), f"{file} does not hold {value} of: {line}"
            checked += 1
    assert checked > 1, text


def test_a_ratio_is_of_two_speeds():
    result = {"files": [{"ways": [{"rows_per_second": 105.65}, {"rows_per_second": 209.17}]}, {"ways": {"a": {}}}]}
    ratios = list(from_speeds(result))
    assert holds(ratios, 1.98, 2) and not holds(ratios, 1.97, 2)


def test_a_figure_that_is_not_there_is_seen():
    result = {"ways": [{"orders": "2", "nll": 0.3152}, {"orders": "1", "nll": 0.48}]}
    line = "| `2` | 0.315 |"
    known = list(numbers_in(scope(result, line)))
    assert [holds(known, *shown) for shown in shown_in(line)] == [True]
    assert not holds(known, 0.316, 3) and not holds(known, 0.48, 2)
    assert shown_in("1,234.5 rows, 5e-6, p = 2.5e-3, 3 of 4, .25") == [(1234.5, 1), (2.5e-3, 4), (0.25, 2)]
