"""The known families, by the `model_type` in a base's config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoring.files.reading import FileError, read_json
from scoring.inputs.families.family import Family
from scoring.inputs.families.glm4v import GLM_4_1V, GLM_4_6V
from scoring.inputs.families.internvl import INTERNVL
from scoring.inputs.families.llava_onevision import LLAVA_ONEVISION
from scoring.inputs.families.qwen2_vl import QWEN2_5_VL, QWEN2_VL
from scoring.inputs.families.qwen3_5 import QWEN3_5
from scoring.inputs.families.qwen3_vl import QWEN3_VL
from scoring.inputs.families.text import LLAMA, QWEN2, QWEN3
from scoring.inputs.pixels import PixelPolicy, read_picture_settings

FAMILIES = (QWEN3_VL, QWEN3_5, QWEN2_5_VL, QWEN2_VL, GLM_4_1V, GLM_4_6V, INTERNVL, LLAVA_ONEVISION, QWEN3, QWEN2, LLAMA)
# Families that were looked at, and why they are refused.
_WINDOW = "its layers attend within a sliding window, where the prefix tree lets each token see its whole path"
REFUSED = {
    "gemma3": _WINDOW,
    "gemma3_text": _WINDOW,
    "internvl_chat": "its files need its authors' own code; the repository whose name ends in -hf has the same model",
}


class FamilyError(FileError):
    """A base of a family that is not known, or that is known not to fit; the message names those that do."""


def family_of(folder: Path) -> Family:
    """The family of a base's folder. Raises FamilyError."""
    config = read_json(folder / "config.json")
    if config is None:
        raise FamilyError(f"{folder}: no config.json; expected the folder of a model")
    return family_of_config(config, folder)


def family_of_config(config: Mapping[str, Any], folder: Path) -> Family:
    """The family of a base by the content of its config.json. folder: for messages. Raises FamilyError."""
    model_type, text = config.get("model_type"), config.get("text_config", {})
    if not isinstance(text, dict):
        raise FamilyError(f"{folder / 'config.json'}: text_config is {text!r}; expected an object")
    for family in FAMILIES:
        if model_type in family.model_types:
            if limit := family.limit(config):
                raise FamilyError(f"{folder}: a {family.name} with {limit}; expected a base without")
            return family
    reason = f", which is refused: {REFUSED[model_type]}" if model_type in REFUSED else ""
    raise FamilyError(f"{folder}: model type {model_type!r}{reason}; expected {known_types()}")


def policy_of(folder: str | Path, pixels: int | None = None) -> PixelPolicy:
    """How a base's pictures are cut. pixels: the budget; by default 448x448 within the limits of the base.

    Raises FileError if the folder has no picture settings, or is of no known family, or if a base that sees no pictures
    has a budget.
    """
    folder = Path(folder)
    family = family_of(folder)
    if not family.sees_pictures:
        if pixels:
            raise FileError(
                f"{folder}: found a budget of {pixels:,} pixels for a {family.name} base, which sees no pictures; "
                "leave out --pixels"
            )
        return family.policy(0, 0)
    settings = read_picture_settings(folder, family.picture_defaults(read_json(folder / "config.json") or {}))
    if settings is None:
        raise FileError(
            f"{folder}: neither processor_config.json with an image_processor nor preprocessor_config.json; "
            "without them pictures might be cut and scaled unlike those of its training: copy the base's"
        )
    try:
        return family.policy.of_settings(settings, pixels)
    except ValueError as error:
        raise FileError(f"{folder}: its picture settings: {error}") from None


def pixel_limit_of(folder: Path, base: Path) -> int | None:
    """The most pixels that picture settings beside an adapter allow, which belongs to `base`; None without a limit."""
    settings = read_picture_settings(folder, {})
    return family_of(base).policy.limits(settings)[1] if settings else None


def known_types() -> str:
    """All model types that are known, for messages."""
    *others, last = (model_type for family in FAMILIES for model_type in family.model_types)
    return f"{', '.join(others)} or {last}"
