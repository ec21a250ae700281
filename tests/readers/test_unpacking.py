"""Bytes of files: packed or not, whole or cut off, and what is no file at all."""

import gzip
import hashlib
import os
import tracemalloc

import pyarrow as pa
import pytest

from scoring.errors import InputError
from scoring.readers import unpacking
from scoring.readers.unpacking import blocks_of, check_file, digest_of, open_unpacked

DATA = bytes(range(256)) * 20_000  # more than one block


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:9]) + gzip.compress(data[9:])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd, two_members])
def test_bytes_come_back_unpacked(tmp_path, pack):
    packed = pack(DATA)  # once: gzip writes the time into its header
    (tmp_path / "t").write_bytes(packed)
    assert b"".join(blocks_of(tmp_path / "t")) == DATA
    with open_unpacked(tmp_path / "t") as stream:
        assert stream.read(7) == DATA[:7] and stream.read(3) == DATA[7:10]
    assert digest_of(tmp_path / "t") == hashlib.sha256(packed).hexdigest()


@pytest.mark.parametrize("pack, name", [(gzip.compress, "gzip"), (zstd, "zstd")])
def test_packed_files_that_are_cut_off_are_refused(tmp_path, pack, name):
    packed = pack(os.urandom(100_000))
    (tmp_path / "t").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=f"a broken {name} file .*; pack it again"):
        list(blocks_of(tmp_path / "t"))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_bomb_is_refused_and_never_held_in_memory(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(unpacking, "MAX_BYTES", 100 * 2**20)
    (tmp_path / "t").write_bytes(pack(b"a" * (200 * 2**20)))
    tracemalloc.start()
    with pytest.raises(InputError, match="GiB when unpacked; expected a smaller table"):
        for _ in blocks_of(tmp_path / "t"):
            pass
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none", "no such file"), (".", "a folder"), ("pipe", "a pipe or device")):
        with pytest.raises(InputError, match=message):
            check_file(tmp_path / name)
        with pytest.raises(InputError, match=message):
            open_unpacked(tmp_path / name)
    with pytest.raises(InputError, match="an unreadable file"):
        check_file(tmp_path / ("x" * 300))
