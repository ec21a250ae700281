"""A folder of Parquet files: which belong together, what is missing, and where a row is."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.errors import InputError
from scoring.readers.shards import open_shards


@pytest.fixture
def folder(tmp_path):
    """Write files into a folder, each with the ids that are given; return the folder."""

    def write(**files: list[int]):
        for name, ids in files.items():
            path = tmp_path / "set" / f"{name.replace('__', '/')}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"id": pa.array(ids, pa.int64()), "question": ["q"] * len(ids)}), path)
        return tmp_path / "set"

    return write


def published(split: str, number: int, count: int) -> str:
    return f"{split}-{number:05}-of-{count:05}"


def ids(table):
    return [row.cells[0] for row in table.rows()]


def test_files_are_one_table_in_the_order_of_their_names(folder):
    path = folder(**{published("test", 1, 2): [3, 4, 5], published("test", 0, 2): [1, 2]})
    table = open_shards(path)
    assert ids(table) == [1, 2, 3, 4, 5] and [row.number for row in table.rows()] == [1, 2, 3, 4, 5]
    assert (table.count, table.split, table.header) == (5, "test", ["id", "question"])
    assert table.format == "Parquet, 2 files of the split 'test'" and not table.notices
    assert table.place_of(1) == (path / "test-00000-of-00002.parquet", 1)
    assert table.place_of(2) == (path / "test-00000-of-00002.parquet", 2)
    assert table.place_of(3) == (path / "test-00001-of-00002.parquet", 1)
    assert table.place_of(5) == (path / "test-00001-of-00002.parquet", 3)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())]
    assert table.digest == hashlib.sha256("\n".join(digests).encode()).hexdigest()


def test_a_file_without_rows_moves_no_number(folder):
    table = open_shards(folder(a=[], b=[7], c=[], d=[8]))
    assert ids(table) == [7, 8] and [table.place_of(row.number)[0].name for row in table.rows()] == [
        "b.parquet",
        "d.parquet",
    ]


def test_a_split_is_chosen_where_there_are_several(folder):
    files = {published("data__test", 0, 1): [1], published("data__validation", 0, 1): [2]}
    path = folder(**files)
    assert ids(open_shards(path, "test")) == [1] and ids(open_shards(path, "validation")) == [2]
    with pytest.raises(InputError, match="files of 2 splits: 'test', 'validation'; expected those of one; choose"):
        open_shards(path)
    with pytest.raises(InputError, match="no split 'dev' among 'test', 'validation'; expected one of them"):
        open_shards(path, "dev")


def test_names_may_end_with_a_digest_or_be_those_of_splits_alone(folder, tmp_path):
    path = folder(**{f"{published('train', 0, 1)}-b4e2ae0d0ea7a1f3": [1], "test": [2]})
    assert ids(open_shards(path, "train")) == [1] and ids(open_shards(path, "test")) == [2]


def test_other_names_are_files_of_one_table(folder):
    path = folder(**{"part-0": [1], "part-1": [2], "train": [3]})
    table = open_shards(path)
    assert ids(table) == [1, 2, 3] and table.split == "" and table.format == "Parquet, 3 files"
    assert open_shards(path, "test").split == ""  # whose rows a column may tell apart


def test_files_of_a_split_beside_others_need_a_choice(folder):
    path = folder(**{published("test", 0, 1): [1], "notes": [2]})
    with pytest.raises(InputError, match=r"files of 2 splits: files without one \(notes.parquet, …\), 'test'"):
        open_shards(path)
    assert ids(open_shards(path, "test")) == [1]


@pytest.mark.parametrize(
    "files, message",
    [
        ([("test", 0, 3), ("test", 2, 3)], "2 of 3 files of the split 'test'; missing: 00001; expected all of them"),
        ([("test", 0, 2), ("test", 1, 3)], "from several sets: of 2 and of 3; expected one set of files; remove"),
    ],
)
def test_a_missing_file_is_named(folder, files, message):
    with pytest.raises(InputError) as caught:
        open_shards(folder(**{published(*file): [1] for file in files}))
    assert message in str(caught.value)


def test_a_file_that_is_there_twice_is_named(folder):
    name = published("test", 0, 1)
    with pytest.raises(InputError, match="file 0 of the split 'test' twice"):
        open_shards(folder(**{name: [1], f"{name}-abc123": [1]}))


def test_columns_may_be_in_another_order_but_not_others(folder):
    path = folder(a=[1])
    pq.write_table(pa.table({"question": ["r"], "id": [2]}), path / "b.parquet")
    assert [row.cells for row in open_shards(path).rows()] == [[1, "q"], [2, "r"]]
    pq.write_table(pa.table({"question": ["r"], "no": [2]}), path / "b.parquet")
    with pytest.raises(
        InputError, match="b.parquet: found other columns than in a.parquet; only in one of them: 'id', 'no'"
    ):
        open_shards(path)


def test_a_folder_without_such_files_is_refused_with_those_inside(folder, tmp_path):
    folder(**{published("art__test", 0, 1): [1]})
    with pytest.raises(InputError, match="a folder without Parquet files, with such in its folders 'art'; .* name one"):
        open_shards(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.parquet").touch()
    with pytest.raises(InputError, match="a folder without Parquet files; expected a table: a file, or a folder"):
        open_shards(tmp_path / "empty")


def test_columns_are_left_out_in_every_file(folder):
    rows = open_shards(folder(a=[1], b=[2])).rows(without=["question"])
    assert [row.cells for row in rows] == [[1, None], [2, None]]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 6])
def test_a_reading_from_a_later_row_on_gives_what_a_whole_one_gives(folder, after):
    table = open_shards(folder(a=[1, 2], b=[], c=[3, 4, 5], d=[]))
    assert list(table.rows(after=after)) == list(table.rows())[after:]
    for shard in table.shards[: 1 if after >= 2 else 0]:
        shard.file.unlink()  # files before the first row are not needed
    assert [row.cells for row in table.rows(["question"], after)] == [[n, None] for n in range(after + 1, 6)]
