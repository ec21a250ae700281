"""The parts of a loaded network, by the family that it belongs to."""

from scoring.engine import Network
from scoring.engine.families.glm4v import Glm4vParts
from scoring.engine.families.internvl import InternVLParts
from scoring.engine.families.parts import NetworkParts
from scoring.engine.families.qwen2_vl import Qwen2VLParts, Qwen25VLParts
from scoring.engine.families.qwen3_vl import Qwen3VLParts
from scoring.inputs.families.glm4v import GLM_4_1V, GLM_4_6V
from scoring.inputs.families.internvl import INTERNVL
from scoring.inputs.families.qwen2_vl import QWEN2_5_VL, QWEN2_VL
from scoring.inputs.families.qwen3_vl import QWEN3_VL
from scoring.inputs.families.registry import FAMILIES

PARTS: dict[str, type[NetworkParts]] = {
    QWEN3_VL.name: Qwen3VLParts,
    QWEN2_5_VL.name: Qwen25VLParts,
    QWEN2_VL.name: Qwen2VLParts,
    GLM_4_1V.name: Glm4vParts,
    GLM_4_6V.name: Glm4vParts,
    INTERNVL.name: InternVLParts,
}


def parts_of(network: Network) -> NetworkParts:
    """The parts of a network that was loaded from a base of a known family."""
    family = next(family for family in FAMILIES if network.config.model_type in family.model_types)
    return PARTS[family.name](network, family)
