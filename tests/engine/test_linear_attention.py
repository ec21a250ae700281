"""Linear attention on the prefix tree: outputs and gradients of the library's own layer, each prompt by itself."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from scoring.checkpoints.export import ExportOptions, export_model
from scoring.checkpoints.merge import MergeBase
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import BaseWeights
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.device_map import move_inputs_to_layers
from scoring.engine.families.qwen3_5 import GatedDeltaNet
from scoring.engine.loading import Model
from scoring.engine.recurrent import NodeBatch, RecurrentLayer
from scoring.engine.stand_in import put_back, unwrap
from scoring.engine.tree import Tree
from scoring.inputs.families.registry import FamilyError, family_of_config
from tests.shared.families import tiny_base
from tests.shared.references import largest_difference, reference_labels
from tests.shared.trees import paths_of, sequence_of


@pytest.fixture(scope="module")
def linear_base(base, tmp_path_factory):
    Model.load(base, "none")  # first: it imports bitsandbytes
    return tiny_base("qwen3_5", base, tmp_path_factory.mktemp("linear") / "base")


@pytest.fixture(scope="module")
def layer(linear_base):
    """The library's first layer of linear attention, with gradients."""
    layer = Model.load(linear_base, "none").network.model.language_model.layers[0].linear_attn
    return layer.requires_grad_(True)


def tree_of_prompts() -> Tree:
    """Prompts of 1 to 190 tokens that share a beginning, branch off in the middle of each other, and stand alone."""
    rng = np.random.default_rng(0)
    beginning, other = rng.integers(10, 99, 70).tolist(), rng.integers(10, 99, 40).tolist()
    texts = [
        [*beginning, *rng.integers(10, 99, 120).tolist()],
        [*beginning, 1, 2],
        [*beginning, 1, 3, *other],
        [*beginning, 1, 3, *other[:20], 4, 5],
        beginning[:33],
        [*beginning[:33], 6],
        other,
        [7],
    ]
    return Tree.build([sequence_of(text) for text in texts], [[]] * len(texts))


def with_gradients(layer, compute, tokens: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs (T, D) of random inputs; gradients of the inputs and every parameter, for random ones of the outputs."""
    generator = torch.Generator().manual_seed(0)
    hidden, grad = (torch.randn(tokens, layer.hidden_size, generator=generator) for _ in range(2))
    hidden.requires_grad_(True)
    layer.zero_grad()
    output = compute(hidden)
    output.backward(grad)
    return output.detach(), [hidden.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize("most", [64, 4096])
def test_outputs_and_gradients_of_a_tree_are_those_of_each_prompt_alone(layer, most):
    tree = tree_of_prompts()
    paths = paths_of(tree)
    tokens = len(tree.ids)
    first = dict.fromkeys(range(tokens))  # the first prompt that has the token: its output counts
    for number, path in reversed(list(enumerate(paths))):
        first |= dict.fromkeys(path, number)

    def alone(hidden: torch.Tensor) -> torch.Tensor:
        outputs = [layer(hidden[path][None])[0] for path in paths]
        return torch.stack([outputs[first[token]][paths[first[token]].index(token)] for token in range(tokens)])

    nodes = NodeBatch.of(tree, torch.device("cpu"), most)
    expected, expected_gradients = with_gradients(layer, alone, tokens)
    found, gradients = with_gradients(layer, lambda hidden: GatedDeltaNet(layer)(hidden[None], nodes)[0], tokens)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert len(gradients) == 1 + 9
    for gradient, of_library in zip(gradients, expected_gradients):
        assert of_library.norm() > 0 and (gradient - of_library).norm() < 1e-5 * of_library.norm()


def test_a_node_that_began_without_its_parents_state_would_answer_otherwise(layer, monkeypatch):
    """A test that the states count here, beside the attention of other layers."""
    tree = tree_of_prompts()
    hidden = torch.randn(1, len(tree.ids), layer.hidden_size, generator=torch.Generator().manual_seed(0))
    nodes, stands = NodeBatch.of(tree, torch.device("cpu")), GatedDeltaNet(layer)
    with torch.no_grad():
        expected = stands(hidden, nodes)
        rule = GatedDeltaNet._rule
        monkeypatch.setattr(
            GatedDeltaNet, "_rule", lambda self, rows, own, state, hand_on: rule(self, rows, own, None, hand_on)
        )
        assert (stands(hidden, nodes) - expected).abs().max() > 0.1 * expected.abs().max()


def test_what_stands_for_the_layers_is_taken_off_and_put_back(linear_base, test_rows):
    scorer = BatchScorer(plan_members([str(linear_base)], quantization="none"))
    modules = dict(scorer.model.network.named_modules())
    assert sum(isinstance(module, RecurrentLayer) for module in modules.values()) == 2
    before = scorer.score(test_rows[:2]).logits
    removed = unwrap(scorer.model.network)
    assert not any(isinstance(module, RecurrentLayer) for module in scorer.model.network.modules())
    put_back(removed)
    assert dict(scorer.model.network.named_modules()).keys() == modules.keys()
    assert np.array_equal(scorer.score(test_rows[:2]).logits, before)


def test_training_keeps_about_as_many_bytes_as_are_counted():
    """100 for each value of a token (`LearningModel.choose_memory`); heads of 128, as the real ones are."""
    config = Qwen3_5TextConfig(hidden_size=64, linear_num_key_heads=1, linear_num_value_heads=2)
    layer = Qwen3_5GatedDeltaNet(config, 0).requires_grad_(False)
    tree, kept = tree_of_prompts(), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hidden = torch.randn(1, len(tree.ids), 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        GatedDeltaNet(layer)(hidden, NodeBatch.of(tree, torch.device("cpu")))
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert 60 < held / len(tree.ids) / layer.value_dim < 240  # the prompts here are shorter than real ones


def test_layers_that_get_their_inputs_on_their_own_card_answer_as_before(linear_base, test_rows):
    scorer = BatchScorer(plan_members([str(linear_base)], quantization="none"))
    before = scorer.score(test_rows[:3], "cyclic").logits
    move_inputs_to_layers(scorer.model.network)
    assert np.array_equal(scorer.score(test_rows[:3], "cyclic").logits, before)


# ------------------------------------------------------------ bases
def test_a_mixture_is_scored_as_the_library_does(base, test_rows, tmp_path):
    """From files with a tensor for each expert, as the library writes them, or with one for all, as the hub has."""
    folder = tiny_base("qwen3_5_moe", base, tmp_path / "base")
    scorer = BatchScorer(plan_members([str(folder)], quantization="none"))
    result = scorer.score(test_rows[:4], "cyclic")
    expected = reference_labels(scorer, test_rows[:4])
    scale = max(np.abs(row).max() for row in expected.values())
    assert largest_difference(result, test_rows[:4], "cyclic", expected) < 1e-5 * max(1, scale)
    network = Model.load(folder, "none").network
    linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {*BaseWeights.of(folder).linear} == linear
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    weights = BaseWeights.of(folder)
    assert {*weights.shapes} == {*network.state_dict()}
    assert {*weights.linear} == linear
    again = BatchScorer(plan_members([str(folder)], quantization="none")).score(test_rows[:4], "cyclic")
    assert np.array_equal(again.logits, result.logits)


def test_layers_that_predict_further_tokens_are_left_out(linear_base, test_rows, tmp_path):
    """As the hub's bases have them: transformers does not read them either."""
    folder = shutil.copytree(linear_base, tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    names = {name: weight.clone() for name, weight in weights.items() if ".layers.1." in name}
    more = {name.replace("model.language_model.layers.1", "mtp.layers.0"): weight for name, weight in names.items()}
    save_file(weights | more, folder / "model.safetensors", metadata={"format": "pt"})
    assert {*BaseWeights.of(folder).shapes} == {*weights}
    plain, scorer = (
        BatchScorer(plan_members([str(each)], quantization="none")).score(test_rows[:2])
        for each in (linear_base, folder)
    )
    assert np.array_equal(plain.logits, scorer.logits)
    export_model(str(folder), tmp_path / "whole", options=ExportOptions(dtype="fp32"))
    assert {*load_file(tmp_path / "whole" / "model.safetensors")} == {*weights}


def test_narrow_projections_are_not_quantized(linear_base):
    network = Model.load(linear_base, "nf4").network
    quantized = {name for name, module in network.named_modules() if type(module).__name__ == "Linear4bit"}
    family = family_of_config({"model_type": "qwen3_5"}, linear_base)
    assert quantized == {name for name in BaseWeights.of(linear_base).linear if family.is_quantized(name)}
    exported = MergeBase(BaseWeights.of(linear_base), "nf4")
    assert quantized == {name for name in BaseWeights.of(linear_base).linear if exported._is_quantized(name)}
    assert {name.rpartition(".")[2] for name in quantized if ".layers.0." in name} == {
        *("in_proj_qkv", "in_proj_z", "out_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }


def test_a_wider_convolution_is_refused(tmp_path):
    for taps, fits in ((4, True), (5, False)):
        config = {"model_type": "qwen3_5", "text_config": {"linear_conv_kernel_dim": taps}}
        if fits:
            assert family_of_config(config, tmp_path).name == "Qwen3.5"
            continue
        with pytest.raises(FamilyError, match="a Qwen3.5 with convolutions over more than 4 tokens"):
            family_of_config(config, tmp_path)


def test_a_last_layer_of_linear_attention_is_refused(tmp_path):
    config = {"model_type": "qwen3_5", "text_config": {"layer_types": ["full_attention", "linear_attention"]}}
    with pytest.raises(FamilyError, match="a Qwen3.5 with linear attention in its last layer"):
        family_of_config(config, tmp_path)
    config["text_config"]["layer_types"].reverse()
    assert family_of_config(config, tmp_path).name == "Qwen3.5"
