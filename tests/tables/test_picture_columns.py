"""Which columns hold pictures."""

import pytest

from scoring.readers.opening import open_table
from scoring.tables.picture_columns import columns_with_pictures, picture_columns
from tests.shared.picture_tables import coded, pictures


@pytest.mark.parametrize(
    "names, inside, columns",
    [
        ("id,path,question", (), [1]),
        ("question,image_path", (), [1]),
        ("question,img_path", (), [1]),
        ("question,image", (), [1]),
        ("question,images", (), [1]),
        ("image,path,image_path", (), [1]),
        ("image,image_path", (), [1]),
        ("image,image_path", (0,), [0]),  # what holds pictures needs no folder
        ("path,images", (1,), [1]),
        ("path,x", (1,), [0]),  # pictures in a column of an unknown name do not count
        ("image_2,q,image_10,image_1", (), [3, 0, 2]),
        ("image1,image2", (), [0, 1]),
        ("image_1,image", (1,), [1]),
        ("image_1,image", (), [0]),
        ("image_1,image1", (), [0]),
        ("image_1,path", (0,), [0]),
        ("question,picture", (), []),
    ],
)
def test_columns_are_found_by_their_names_and_those_with_pictures_go_first(names, inside, columns):
    assert picture_columns(names.split(","), inside) == columns


def test_a_column_that_holds_pictures_is_found_by_its_first_rows(tmp_path):
    data = pictures()[0]
    rows = [
        "a.png,,x,['cat'],",
        f",{coded(data)},{coded(b'no picture' * 20)},['dog'],",
        f'b.png,,x,"{[coded(data)]}",y,z',
    ]
    (tmp_path / "t.csv").write_text("\n".join(["p,image,text,options,last", *rows]))
    assert columns_with_pictures(open_table(tmp_path / "t.csv", {"image"})) == {1, 3}
