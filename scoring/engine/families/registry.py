"""The parts of a loaded network, by the family that it belongs to. Only that family's file is imported."""

from importlib import import_module

from scoring.engine import Network
from scoring.engine.families.parts import NetworkParts
from scoring.inputs.families.family import Family
from scoring.inputs.families.glm4v import GLM_4_1V, GLM_4_6V
from scoring.inputs.families.internvl import INTERNVL
from scoring.inputs.families.llava_onevision import LLAVA_ONEVISION
from scoring.inputs.families.qwen2_vl import QWEN2_5_VL, QWEN2_VL
from scoring.inputs.families.qwen3_5 import QWEN3_5
from scoring.inputs.families.qwen3_vl import QWEN3_VL
from scoring.inputs.families.registry import FAMILIES
from scoring.inputs.families.text import LLAMA, QWEN2, QWEN3

# For each family the file beside this one, and its class.
PARTS = {
    QWEN3_VL.name: ("qwen3_vl", "Qwen3VLParts"),
    QWEN3_5.name: ("qwen3_5", "Qwen35Parts"),
    QWEN2_5_VL.name: ("qwen2_vl", "Qwen25VLParts"),
    QWEN2_VL.name: ("qwen2_vl", "Qwen2VLParts"),
    GLM_4_1V.name: ("glm4v", "Glm4vParts"),
    GLM_4_6V.name: ("glm4v", "Glm4vParts"),
    INTERNVL.name: ("internvl", "InternVLParts"),
    LLAVA_ONEVISION.name: ("llava_onevision", "LlavaOnevisionParts"),
    QWEN3.name: ("text", "TextParts"),
    QWEN2.name: ("text", "TextParts"),
    LLAMA.name: ("text", "TextParts"),
}


def parts_of(network: Network) -> NetworkParts:
    """The parts of a network that was loaded from a base of a known family."""
    family = next(family for family in FAMILIES if network.config.model_type in family.model_types)
    return parts_class(family)(network, family)


def parts_class(family: Family) -> type[NetworkParts]:
    """The class of the parts of a family's networks."""
    module, name = PARTS[family.name]
    parts: type[NetworkParts] = getattr(import_module(f"scoring.engine.families.{module}"), name)
    return parts
