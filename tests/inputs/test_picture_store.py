"""Files for pictures that come without one: each once, whole, and named by its bytes."""

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from scoring.files.reading import FileError
from scoring.inputs import picture_store
from scoring.inputs.picture_store import PictureStore

PNG, JPEG = b"the bytes of a picture", b"those of another one"  # a store does not look into them


def test_a_picture_is_kept_once_under_its_digest(tmp_path):
    store = PictureStore(folder=tmp_path / "pictures")
    digest = hashlib.sha256(JPEG).hexdigest()
    path = store.file_of(JPEG, "JPEG")
    assert path == tmp_path / "pictures" / digest[:2] / f"{digest}.jpg" and path.read_bytes() == JPEG
    os.utime(path, (0, 0))
    assert store.file_of(JPEG, "JPEG") == path and path.stat().st_mtime == 0  # not written again
    assert store.file_of(PNG, "PNG").suffix == ".png" and store.file_of(PNG, "TIFF").suffix == ".tif"


def test_a_file_that_a_power_cut_emptied_is_written_again(tmp_path):
    store = PictureStore(folder=tmp_path)
    path = store.file_of(PNG, "PNG")
    path.write_bytes(b"")
    assert store.file_of(PNG, "PNG") == path and path.read_bytes() == PNG


def test_without_keeping_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = PictureStore(keep=False).file_of(PNG, "PNG")
    assert path.is_relative_to(tmp_path / "cache" / "logit-scoring" / "pictures") and not list(tmp_path.iterdir())
    assert PictureStore().file_of(PNG, "PNG") == path and path.read_bytes() == PNG


def test_threads_may_keep_the_same_picture_at_once(tmp_path):
    store = PictureStore(folder=tmp_path)
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: store.file_of(PNG, "PNG"), range(100)))
    assert len(paths) == 1 and [path.name for path in tmp_path.glob("*/*")] == [paths.pop().name]


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "a full disk"), (errno.EACCES, "Permission denied")])
def test_a_folder_that_takes_no_file_is_named_with_what_to_do(tmp_path, monkeypatch, number, words):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(picture_store, "write_whole", fail)
    with pytest.raises(FileError, match=f"{tmp_path}: found {words}; expected room .* XDG_CACHE_HOME"):
        PictureStore(folder=tmp_path).file_of(PNG, "PNG")
