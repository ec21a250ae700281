"""Tensors that threads read ahead are those of the files, in the library's order, and no more of them than agreed."""

import threading
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.weights import CheckpointError
from scoring.engine import weight_reader
from scoring.engine.loading import Model
from scoring.engine.weight_reader import WeightReader, read_ahead

CPU = torch.device("cpu")


@contextmanager
def reading(folder):
    reader = WeightReader(folder, CPU)
    try:
        yield reader
    finally:
        reader.close()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_network_has_the_bits_that_the_library_gives_it(sharded, monkeypatch, quantization):
    """On cards a base is read like this. Here the same threads copy from the files into the host's memory."""
    expected = Model.load(sharded, quantization).network.state_dict()
    asked, take = [], WeightReader.take
    monkeypatch.setattr(WeightReader, "take", lambda self, name: asked.append(name) or take(self, name))
    monkeypatch.setattr(weight_reader, "PIECE", 50_000)  # of a tensor's bytes a thread has some
    with read_ahead(sharded, CPU) as reader:
        coming = [*reader._arriving, *reversed(reader._coming)]
        found = Model.load(sharded, quantization).network.state_dict()
    assert sorted(asked) == sorted(name for tensors in reader.files.values() for name in tensors)
    if quantization == "nf4":  # without it the library asks from several threads
        assert asked == coming
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert weight.dtype == expected[name].dtype and torch.equal(weight, expected[name]), name


def test_what_nobody_has_asked_for_stays_small(sharded, monkeypatch):
    monkeypatch.setattr(WeightReader, "_free", lambda self: 4 * 2**20)
    limit = 4 * 2**20 * weight_reader.SHARE
    with reading(sharded) as reader:
        names = [*reader._arriving, *reversed(reader._coming)]
        sizes = {tensor.name: tensor.size for tensors in reader.files.values() for tensor in tensors.values()}
        largest = 0
        for name in [*names[10:], *names[:10]]:  # in another order than expected
            waiting = sum(arriving.tensor.nbytes for arriving in reader._arriving.values())
            assert waiting <= limit or len(reader._arriving) == 1
            largest = max(largest, waiting)
            assert reader.take(name).nbytes == sizes[name]
    assert 0 < largest < sum(sizes.values()) / 4


def test_all_types_shapes_and_sizes_arrive(tmp_path, base, monkeypatch):
    monkeypatch.setattr(weight_reader, "PIECE", 7)
    kinds = weight_reader.TYPES.values()
    tensors = {f"layers.{number}": torch.arange(30).view(5, 6).to(kind) for number, kind in enumerate(kinds)}
    tensors |= {"a.scalar": torch.tensor(1.5), "b.empty": torch.empty(0, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    with reading(tmp_path) as reader:
        assert [*reader._arriving] == ["a.scalar", "b.empty", *(f"layers.{number}" for number in range(len(kinds)))]
        for name, tensor in load_file(tmp_path / "model.safetensors").items():
            found = reader.take(name)
            assert found.dtype == tensor.dtype and torch.equal(found, tensor)
            assert torch.equal(reader.take(name), tensor)  # asked for again


def test_a_file_that_is_cut_off_while_it_is_read_is_named_and_no_thread_stays(sharded, monkeypatch):
    threads = threading.active_count()
    header = weight_reader.read_header

    def cut(path):
        tensors = header(path)
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size - 5)
        return tensors

    monkeypatch.setattr(weight_reader, "read_header", cut)
    with pytest.raises(CheckpointError, match=r"model.*\.safetensors: it ends within .*; copy it again"):
        with read_ahead(sharded, CPU):
            Model.load(sharded, "none")
    assert threading.active_count() == threads


def test_other_files_are_opened_as_ever(sharded, base, plain_base):
    with read_ahead(sharded, CPU) as reader:
        found = Model.load(base, "none").network.state_dict()
        assert len(reader._arriving) > 0  # nobody asked for these
    assert all(torch.equal(weight, found[name]) for name, weight in plain_base.network.state_dict().items())
