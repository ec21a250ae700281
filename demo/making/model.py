"""The base model's shape, and its forward over a batch of conversations that have one picture size."""

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn
from transformers import AttentionInterface, GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

PATCH = 16


def config(tokenizer: Tokenizer) -> Qwen3VLConfig:
    """7.6 million parameters: a five-layer vision tower and a five-layer text model with deepstack and M-RoPE."""
    token = tokenizer.token_to_id
    return Qwen3VLConfig(
        tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        vision_config=dict(
            depth=5,
            hidden_size=192,
            intermediate_size=512,
            num_heads=6,
            out_hidden_size=256,
            patch_size=PATCH,
            spatial_merge_size=2,
            temporal_patch_size=2,
            num_position_embeddings=144,
            deepstack_visual_indexes=[2],
        ),
        text_config=dict(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            rope_parameters=dict(
                rope_type="default", rope_theta=10000.0, mrope_section=[12, 10, 10], mrope_interleaved=True
            ),
            bos_token_id=None,
            eos_token_id=token("<|im_end|>"),
            pad_token_id=token("<|endoftext|>"),
        ),
    )


def new_model(tokenizer: Tokenizer) -> Qwen3VLForConditionalGeneration:
    """Random float32 weights, set up for `forward`: pictures attend in one batched product, norms are fused."""
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config(tokenizer)).float()
    AttentionInterface.register("equal_pictures_flash", _attend_within_equal_pictures)
    model.set_attn_implementation({"": "sdpa", "text_config": "sdpa", "vision_config": "equal_pictures_flash"})
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "Qwen3VLTextRMSNorm":
                setattr(module, name, _FusedNorm(child.weight, child.variance_epsilon))
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")],
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        do_sample=False,
    )
    return model


def compile_layers(model) -> None:
    """Fuse each layer's small operations, for any batch and length; what cannot be compiled stays as it is."""
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.cache_size_limit = 64
    for layer in [*model.model.visual.blocks, *model.model.language_model.layers]:
        layer.compile(dynamic=True)


def forward(model, patches: torch.Tensor, grid: tuple[int, int], ids: torch.Tensor, positions: torch.Tensor):
    """Hidden states (B, L, D) and picture tokens (B, N, D).

    patches (B, rows * columns, 1536) of pictures of one grid (rows, columns); ids (B, L) padded on the right;
    positions (3, B, L). Padding needs no mask: attention is causal.
    """
    count = len(ids)
    grids = torch.tensor([[1, *grid]] * count, device=ids.device)
    seen = model.model.visual(patches.flatten(0, 1), grid_thw=grids)
    pictures, text = seen.pooler_output, model.model.language_model
    is_picture = ids == model.config.image_token_id
    embedded = text.embed_tokens(ids).to(pictures.dtype).masked_scatter(is_picture[..., None], pictures)
    hidden = text(
        inputs_embeds=embedded,
        position_ids=positions,
        visual_pos_masks=is_picture,
        deepstack_visual_embeds=seen.deepstack_features,
        use_cache=False,
    ).last_hidden_state
    return hidden, pictures.view(count, -1, pictures.shape[-1])


def patchify(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, 16 rows, 16 columns) in [-1, 1] -> (B, rows * columns, 1536) in the processor's 2x2 merge order."""
    count, _, height, width = pictures.shape
    rows, columns = height // PATCH, width // PATCH
    blocks = pictures.view(count, 3, rows // 2, 2, PATCH, columns // 2, 2, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    frames = blocks.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return frames.reshape(count, rows * columns, -1)


class _FusedNorm(nn.Module):
    """`Qwen3VLTextRMSNorm` as one kernel; the parameter keeps its name, so a saved model is the library's own."""

    def __init__(self, weight: nn.Parameter, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, hidden):
        return F.rms_norm(hidden, self.weight.shape, self.weight.to(hidden.dtype), self.epsilon)


def _attend_within_equal_pictures(module, query, key, value, attention_mask, scaling, cu_seq_lens_q, **_):
    """Attention inside each picture, where all have as many patches: (1, heads, patches, dim) -> (1, patches, …)."""
    _, heads, total, dim = query.shape
    count = cu_seq_lens_q.shape[0] - 1
    query, key, value = (x.reshape(heads, count, total // count, dim).transpose(0, 1) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value, scale=scaling)
    return attended.transpose(1, 2).reshape(1, total, heads, dim), None
