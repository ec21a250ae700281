"""The report page in a real browser: Chromium, headless. Skipped, with the reason, where there is none."""

import shutil
from pathlib import Path

import pytest

from scoring.scores.evaluation import evaluate_scores
from scoring.scores.folder import open_scores
from tests.shared.report_folders import HOSTILE, bench_json, folder

BROWSER = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update"
).split()


@pytest.fixture(scope="module")
def chromium():
    if BROWSER is None:
        pytest.skip("no Chromium here (`make browser` installs it where that can be done)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_file(chromium):
    """Open the file of a page. Any message of the console and any request but for the file itself fails the test."""
    contexts, messages = [], []

    def open_page(path: Path, width=1280, height=900, **settings):
        context = chromium.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: messages.append(dialog.message))
        page.on("request", lambda request: None if allowed(request.url, path) else messages.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not messages


def allowed(url: str, path: Path) -> bool:
    return url.startswith("data:") or url == path.as_uri()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    from scoring.report.page import write_report

    out = tmp_path_factory.mktemp("pages")
    written = {
        "two": write_report(folder(out / "two", members=2, orders="cyclic", unscored=[3, 5])),
        "hostile": write_report(folder(out / "hostile", hostile=True, n=8)),
        "bench": write_report(bench_json(out / "bench")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scoring.report.page.figures_of_scores", lambda *arguments: [])  # they take two seconds a page
        return written | {
            "doubtful": write_report(doubtful(out / "doubtful")),
            "many": write_report(folder(out / "many", n=1000, pictures=40)),
        }


def doubtful(out: Path) -> Path:
    """A folder that was evaluated, whose rows 4 and 8 have doubtful labels."""
    evaluate_scores(open_scores(folder(out)), suspects=True)
    (out / "suspects.csv").write_text("id,flagged\nrow8,1\nrow4,1\nrow0,0\n")
    return out


def visible_rows(page) -> int:
    return page.locator(".row:visible").count()


def test_pictures_and_figures_are_shown(open_file, pages):
    page = open_file(pages["two"])
    assert page.title() == "two: ensemble" and visible_rows(page) == 40
    page.wait_for_function("[...document.images].filter(i => i.offsetParent).every(i => i.complete && i.naturalWidth)")
    assert page.locator("figure img:visible").count() == 6
    assert page.locator(".row .picture img").count() == 40
    assert page.evaluate("[...document.images].every(i => i.alt)")
    assert page.evaluate("[...document.querySelectorAll('input, select')].every(i => i.labels.length)")


def test_search_filters_and_sorting_change_the_rows(open_file, pages):
    page = open_file(pages["two"])
    page.get_by_role("searchbox").fill("ROW7")
    assert visible_rows(page) == 1 and page.locator("#count").inner_text() == "1 of 40 rows"
    page.get_by_role("searchbox").fill("option z12")
    assert page.locator(".row:visible .id").all_inner_texts() == ["row12"]
    page.get_by_role("searchbox").fill("")
    button = page.get_by_role("button", name="unscored (2)")
    button.click()
    assert page.locator(".row:visible .id").all_inner_texts() == ["row3", "row5"]
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert visible_rows(page) == 40 and button.get_attribute("aria-pressed") == "false"
    page.locator("#type").select_option("count")
    assert 0 < visible_rows(page) < 40
    page.locator("#type").select_option("")
    page.get_by_label("Sort").select_option("unsure")
    sure = page.evaluate("[...document.querySelectorAll('.row')].map(r => Number(r.dataset.sure ?? -1))")
    assert sure == sorted(sure)
    page.get_by_label("Sort").select_option("missed")
    right = page.evaluate("[...document.querySelectorAll('.row')].map(r => Number(r.dataset.right ?? 2))")
    assert right == sorted(right)
    page.get_by_label("Sort").select_option("number")
    numbers = page.evaluate("[...document.querySelectorAll('.row')].map(r => Number(r.dataset.number))")
    assert numbers == sorted(numbers)


def focused(page) -> str:
    return page.evaluate("document.activeElement.querySelector('.id')?.textContent ?? document.activeElement.id")


def test_keys_move_the_focus_and_filter_rows(open_file, pages):
    page = open_file(pages["two"])
    for key, expected in (
        ("ArrowDown", "row0"),
        ("ArrowDown", "row1"),
        ("j", "row2"),
        ("ArrowUp", "row1"),
        ("k", "row0"),
    ):
        page.keyboard.press(key)
        assert focused(page) == expected
    page.keyboard.press("Enter")
    assert page.locator(".row.large").count() == 1
    page.keyboard.press("u")
    assert visible_rows(page) == 2
    page.keyboard.press("ArrowDown")
    assert focused(page) == "row3"
    page.keyboard.press("a")
    assert visible_rows(page) == 40
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("row1")  # letters of filters are letters here
    assert page.get_by_role("searchbox").input_value() == "row1" and visible_rows(page) == 11
    page.keyboard.press("ArrowDown")
    assert focused(page) == "row1"
    page.keyboard.press("Escape")
    assert focused(page) == "search"
    page.get_by_role("searchbox").blur()
    page.keyboard.press("s")
    assert focused(page) == "sort"


def test_doubtful_labels_have_a_filter_once_they_were_looked_for(open_file, pages):
    page = open_file(pages["doubtful"])
    button = page.get_by_role("button", name="label doubtful (2)")
    page.keyboard.press("l")
    assert page.locator(".row:visible .id").all_inner_texts() == ["row4", "row8"]
    assert button.get_attribute("aria-pressed") == "true" and "probably wrong" in button.get_attribute("title")
    button.click()
    assert visible_rows(page) == 40
    page = open_file(pages["two"])
    page.keyboard.press("l")
    assert visible_rows(page) == 40 and not page.get_by_role("button", name="label doubtful").count()


def test_a_row_says_everything_in_words_too(open_file, pages):
    row = open_file(pages["two"]).locator(".row").nth(1)
    text = row.inner_text()
    assert "row1" in text and "option w1" in text and "m0" in text and "lead 0." in text
    assert row.get_by_text("right", exact=True).count() >= 1 and row.get_by_text(" answered").count() == 1


def test_hostile_cells_are_shown_as_text(open_file, pages):
    page = open_file(pages["hostile"])
    assert page.evaluate("window.hacked") is None
    assert page.locator(".row .question").first.inner_text() == HOSTILE
    assert page.locator(".row .text").first.inner_text() == HOSTILE + "w"
    assert page.locator(".row .id").first.inner_text() == HOSTILE
    assert HOSTILE in page.locator(".warnings").inner_text()
    assert page.locator(".row .type").first.inner_text() == HOSTILE


def test_a_benchmark_is_filtered_by_a_key(open_file, pages):
    page = open_file(pages["bench"])
    page.keyboard.press("g")
    assert page.locator(".row:visible .id").all_inner_texts() == ["r1"]
    assert "none" in page.locator(".row:visible .replies").inner_text()
    assert page.locator("figure img:visible").count() == 2


def test_a_thousand_rows_are_searched_and_sorted(open_file, pages):
    """How fast is measured by `python -m benchmarks.page`."""
    page = open_file(pages["many"])
    assert page.locator(".row").count() == 1000
    assert page.evaluate("getComputedStyle(document.querySelector('.row')).contentVisibility") == "auto"
    page.get_by_role("searchbox").fill("row99")
    assert visible_rows(page) == 11
    page.get_by_label("Sort").select_option("sure")
    assert visible_rows(page) == 11


@pytest.mark.parametrize("name", ["two", "bench", "hostile"])
def test_the_page_fits_a_phone(open_file, pages, name):
    page = open_file(pages[name], width=360, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".row .options").first.bounding_box()["width"] > 250


def test_dark_colours_and_printing_are_supported(open_file, pages):
    dark = open_file(pages["two"], color_scheme="dark")
    assert dark.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert dark.locator("figure img.dark:visible").count() == 6 and not dark.locator("figure img.light:visible").count()
    page = open_file(pages["two"])
    page.emulate_media(media="print")
    assert not page.locator(".tools").is_visible() and page.locator(".row").first.is_visible()
    assert len(page.pdf()) > 50_000


def test_without_javascript_everything_but_pictures_is_shown(open_file, pages):
    page = open_file(pages["two"], java_script_enabled=False)
    assert page.locator(".row").count() == 40 and "need JavaScript" in page.locator("noscript").inner_text()
