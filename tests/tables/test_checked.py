"""What a check finds of tables, and of those that cannot be read."""

from functools import partial

from scoring.tables.checked import check_table, compare
from scoring.tables.reading import read_table

HEADER = "id,question,a,b,answer\n"


def test_tables_have_their_problems_and_share_overviews_in_order(tmp_path):
    texts = {"one": "1,Which?,x,y,a\n2,,x,y,b\n", "none": None, "bad": "1,,x,y,a\n", "two": "9,Which?,x,y,b\n"}
    found = []
    for name, text in texts.items():
        file = tmp_path / f"{name}.csv"
        if text:
            file.write_text(HEADER + text)
        found.append(check_table(file, partial(read_table, file)))
    checked = compare(found)
    one, none, bad, two = checked.tables
    assert [len(each.problems) for each in checked.tables] == [1, 1, 1, 0] and len(checked.problems) == 3
    assert none.table is None and not none.notices and none.overview is bad.overview is None
    assert one.overview.good == two.overview.good == 1 and one.overview.file == str(tmp_path / "one.csv")
    [overlap] = checked.overlaps
    assert (overlap.first, overlap.second, overlap.rows) == (str(one.file), str(two.file), ["9"])
    assert checked.notices == [*one.notices, *bad.notices, *two.notices]
