"""Tensors that threads read ahead are those of the files, in the library's order, and no more of them than agreed."""

import threading
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.weights import CheckpointError
from scoring.engine import weight_reader
from scoring.engine.loading import Model
from scoring.engine.weight_reader import WeightReader

CPU = torch.device("cpu")


def reading(folder):
    return closing(WeightReader(folder, CPU))


@pytest.fixture
def read_ahead(monkeypatch):
    """As on cards: the same threads copy from the files into the host's memory."""
    monkeypatch.setattr("scoring.engine.loading.reads_ahead", lambda device: True)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_network_is_what_the_library_makes_of_the_folder(sharded, monkeypatch, quantization):
    expected = Model.load(sharded, quantization).network
    monkeypatch.setattr("scoring.engine.loading.reads_ahead", lambda device: True)
    asked, take = [], WeightReader.take
    monkeypatch.setattr(WeightReader, "take", lambda self, name: asked.append(name) or take(self, name))
    monkeypatch.setattr(weight_reader, "PIECE", 50_000)  # of a tensor's bytes a thread has some
    with reading(sharded) as reader:
        coming = [*reader._arriving, *reversed(reader._coming)]
        names = sorted(reader.state)
    found = Model.load(sharded, quantization).network
    assert sorted(asked) == names
    if quantization == "nf4":  # without it the library asks from several threads
        assert asked == coming
    before, state = expected.state_dict(), found.state_dict()
    assert state.keys() == before.keys()
    for name, weight in state.items():
        assert weight.dtype == before[name].dtype and torch.equal(weight, before[name]), name
    assert found.config.to_dict() == expected.config.to_dict()
    assert found.generation_config.to_dict() == expected.generation_config.to_dict()


def test_what_nobody_has_asked_for_stays_small(sharded, monkeypatch):
    monkeypatch.setattr(WeightReader, "_free", lambda self: 4 * 2**20)
    limit = 4 * 2**20 * weight_reader.SHARE
    with reading(sharded) as reader:
        names = [*reader._arriving, *reversed(reader._coming)]
        sizes = {name: tensor.stored.size for name, tensor in reader.state.items()}
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


def test_a_file_that_is_cut_off_while_it_is_read_is_named_and_no_thread_stays(sharded, monkeypatch, read_ahead):
    threads = threading.active_count()
    header = weight_reader.read_header

    def cut(path):
        tensors = header(path)
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size - 5)
        return tensors

    monkeypatch.setattr(weight_reader, "read_header", cut)
    with pytest.raises(CheckpointError, match=r"model.*\.safetensors: it ends within .*; copy it again"):
        Model.load(sharded, "none")
    assert threading.active_count() == threads
