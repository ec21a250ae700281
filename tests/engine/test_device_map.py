"""A base laid over several cards: what may stand where, and that nothing changes where there is one device."""

import pytest
import torch

from benchmarks.faults import SCORED, content
from scoring.checkpoints.weights import CheckpointError
from scoring.engine.device_map import devices_of, make_device_map, move_inputs_to_layers
from scoring.engine.loading import Model
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.scores.folder import RunError
from scoring.tables.reading import read_table
from tests.shared.families import tiny_base

MIB = 2**20


@pytest.fixture(scope="module")
def sizes(base) -> dict[str, int]:
    """Bytes of the demo's weights in float32, by the parts that stand whole."""
    bytes_of: dict[str, int] = {}
    for name, weight in Model.load(base, "none").network.named_parameters():
        parts = name.split(".")
        key = ".".join(parts[: 4 if "layers" in parts else 3 if "language_model" in parts else 2])
        bytes_of[key] = bytes_of.get(key, 0) + weight.numel() * 4
    return bytes_of


@pytest.mark.parametrize("four_bit", [False, True])
def test_layers_and_the_vision_tower_stand_whole(base, sizes, four_bit):
    free = dict.fromkeys(range(3), sum(sizes.values()) * 2 // 3)
    device_map = make_device_map(base, torch.float32, four_bit, free)
    layers = {module: card for module, card in device_map.items() if ".layers." in module}
    assert len(set(device_map.values())) > 1 and all(module.count(".") == 3 for module in layers)
    order = [layers[f"model.language_model.layers.{number}"] for number in range(len(layers))]
    assert order == sorted(order)
    assert not any(module.startswith("model.visual.") for module in device_map)
    first = device_map["model.visual"]
    assert first == device_map["model.language_model.embed_tokens"] == device_map["model.language_model.rotary_emb"]


def test_layers_of_a_text_model_stand_whole(base, tmp_path):
    folder = tiny_base("qwen3", base, tmp_path / "base")
    free = dict.fromkeys(range(3), (folder / "model.safetensors").stat().st_size * 2 // 3)
    device_map = make_device_map(folder, torch.float32, False, free)
    layers = [device_map[f"model.layers.{number}"] for number in range(3)]
    assert layers == sorted(layers) and len(set(device_map.values())) > 1
    assert device_map["model.embed_tokens"] == device_map["model.rotary_emb"] == min(device_map.values())


def test_what_does_not_fit_is_told_before_it_is_loaded(base):
    with pytest.raises(CheckpointError, match=r"do not fit into the 0.0, 0.0 GiB free on the cards; expected room"):
        make_device_map(base, torch.float32, False, {0: MIB // 10, 1: MIB // 10})


def test_a_followed_network_answers_as_before(base, scorer, test_rows):
    model = Model.load(base, "nf4")
    assert devices_of(model.network) == [torch.device("cpu")]
    before = scorer.score(test_rows[:6]).logits
    move_inputs_to_layers(scorer.model.network)
    try:
        assert (scorer.score(test_rows[:6]).logits == before).all()
    finally:
        for module in scorer.model.network.modules():
            module._forward_pre_hooks.clear()
            module._forward_pre_hooks_with_kwargs.clear()


def test_on_one_device_nothing_is_spread(cli, tmp_path, small_table):
    arguments = ["score", small_table(4), "--ckpt", "demo/checkpoints/fold0"]
    cli(*arguments, "--out", tmp_path / "one")
    cli(*arguments, "--device-map", "auto", "--out", tmp_path / "auto")
    assert content(tmp_path / "auto", SCORED) == content(tmp_path / "one", SCORED)


def test_several_processes_do_not_each_take_all_cards(scorer, small_table, tmp_path):
    from scoring.run.processes import Processes

    with pytest.raises(RunError, match="start it without torchrun"):
        options = RunOptions(device_map="auto")
        run(read_table(small_table(2)), scorer, tmp_path, options, RunContext(processes=Processes(0, 2)))
