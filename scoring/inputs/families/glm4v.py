"""GLM-4.1V and GLM-4.6V, dense. Their picture settings count the pixels of both frames that a patch holds."""

from dataclasses import replace

from scoring.inputs.families.family import Family
from scoring.inputs.families.qwen2_vl import QWEN2_5_VL
from scoring.inputs.pixels import PictureSettings, PixelPolicy


class GlmPixelPolicy(PixelPolicy):
    """As the library's `Glm4vImageProcessorPil`: a side shorter than a token is scaled up first."""

    @staticmethod
    def limits(settings: PictureSettings) -> tuple[int, int | None]:
        frames, most = settings.temporal_patch_size, settings.most_pixels
        return settings.fewest_pixels // frames, most and most // frames

    def size(self, width: int, height: int) -> tuple[int, int]:
        factor = self.patch * self.merge
        if min(width, height) < factor:
            scale = max(factor / height, factor / width)
            width, height = int(width * scale), int(height * scale)
        return super().size(width, height)


GLM_4_1V = Family(
    name="GLM-4.1V",
    model_types=("glm4v",),
    image_token="<|image|>",
    end_of_turn="<|user|>",
    picture_settings=QWEN2_5_VL.picture_settings,
    policy=GlmPixelPolicy,
    not_linear=("embed_tokens", "position_embedding"),
    fused={"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"},
    text_types=("glm4v_text",),
)
GLM_4_6V = replace(GLM_4_1V, name="GLM-4.6V", model_types=("glm46v",))
