"""Which files have the same bytes, and how few of them are opened to find out."""

import pytest
from PIL import Image

from scoring.inputs.digests import picture_digest
from scoring.tables import copies
from scoring.tables.copies import TAIL, identities


@pytest.fixture
def files(tmp_path):
    def write(**contents: bytes):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return [tmp_path / name for name in contents]

    return write


def test_files_with_the_same_bytes_share_what_no_other_file_has(files):
    one, same, other, longer = files(one=b"red", same=b"red", other=b"tea", longer=b"reds")
    found = identities([one, same, other, longer])
    assert found[one] == found[same] == picture_digest(one)
    assert found[other] == str(other) and found[longer] == str(longer)
    assert identities([one, same, one]) == {one: found[one], same: found[one]}


def test_pictures_in_memory_are_recognised_by_their_content(files):
    file, other = files(file=b"red", other=b"blue")
    picture, same = Image.new("L", (2, 2)), Image.new("L", (2, 2))
    found = identities([file, other, b"red", picture, same])
    assert found[file] == found[b"red"] != found[other] and found[id(picture)] == found[id(same)]
    assert len(set(found.values())) == 3 and set(identities([b"red", b"tea"])) == {b"red", b"tea"}


def test_no_more_is_read_than_tells_files_apart(files, monkeypatch):
    body = b"." * 3 * TAIL
    names = files(alone=b"1", head=b"a" + body, tail=body + b"b", twin=b"c" + body, gone=b"22", pair=b"33")
    names[4].unlink()
    read, looked_at = [], []
    monkeypatch.setattr(copies, "picture_digest", lambda file: read.append(file.name) or picture_digest(file))
    tail = copies._size_and_tail
    monkeypatch.setattr(copies, "_size_and_tail", lambda file: looked_at.append(file.name) or tail(file))
    found = identities(names)
    assert sorted(looked_at) == ["head", "tail", "twin"]  # of one size
    assert sorted(read) == ["head", "twin"]  # and with the same end
    assert len(set(found.values())) == len(names)


def test_progress_counts_the_files_that_are_opened(files):
    counts = []
    same = files(a=b"1", b=b"1", c=b"2", d=b"333")
    identities(same, lambda items, total: counts.append(total) or items)
    assert counts == [3, 2]  # three ends, then two whole files
