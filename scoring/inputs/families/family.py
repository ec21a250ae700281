"""What a family of models says of itself without torch. A family's file makes one `Family` for each of its members."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scoring.inputs.pixels import PixelPolicy

HEAD = "lm_head"
HEAD_WEIGHT = f"{HEAD}.weight"


@dataclass(frozen=True)
class Sizes:
    """Of a language model: layers, width of the hidden state, heads of queries, of keys and values, and their size.

    inner: width of one token's feed-forward. copies: of its hidden state that a mixture makes for it, to and from each
    expert that the token goes through. recurrent: width of the values of linear attention; 0 without.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    inner: int
    copies: int
    recurrent: int = 0


@dataclass(frozen=True)
class Family:
    """One family: dense models and mixtures of experts with the same tokens, pictures and names.

    model_types: as config.json names them; mixtures: those of them that are mixtures of experts.
    image_token: of the chat template; each of a picture's tokens has its id; "" for a family that sees no pictures.
    around: the control tokens that the library's processor, not the template, puts before and after a picture's.
    in_texts: whether a picture between texts is the image token within a text: the template puts all others first.
    end_of_turn: what ends an answer. auto_model: the class of transformers that loads a base.
    picture_settings: of the library's processor, for what a base's own settings leave out.
    policy: how pictures are cut.
    language, vision: what names of modules begin with in the language model and in the vision tower ("": none).
    projector: and in what makes tokens of the tower's features, where that is not a part of the tower.
    not_linear: ends of names of two-dimensional weights that are no linear layers; router: of a mixture, likewise;
    experts: a piece of the names of a mixture's experts, which files may hold one by one, each as a linear layer.
    renamed: (pattern, replacement), which turn a name in the base's files into that of the module, where they differ.
    unread: what names in files begin with that the library leaves out: layers that predict further tokens.
    kept_whole: ends of names of linear layers that stay in 16 or 32 bits, as narrow as they are.
    fused: names of linear layers that are usual, and the name of the one layer here that does the work of several.
    text_types: of the language model, where one of another type may stand in such a base; () for any.
    """

    name: str
    model_types: tuple[str, ...]
    image_token: str
    end_of_turn: str
    around: tuple[str, str] | tuple[()] = ()
    in_texts: bool = False
    mixtures: tuple[str, ...] = ()
    picture_settings: Mapping[str, Any] = field(default_factory=dict)
    policy: type[PixelPolicy] = PixelPolicy
    auto_model: str = "AutoModelForImageTextToText"
    language: str = "model.language_model."
    vision: str = "model.visual"
    projector: str = ""
    not_linear: tuple[str, ...] = ("embed_tokens", "pos_embed")
    router: str = ".mlp.gate"
    experts: str = ".mlp.experts."
    renamed: tuple[tuple[str, str], ...] = ()
    unread: tuple[str, ...] = ()
    kept_whole: tuple[str, ...] = ()
    fused: Mapping[str, str] = field(default_factory=dict)
    text_types: tuple[str, ...] = ()

    @property
    def sees_pictures(self) -> bool:
        """Whether questions may have pictures."""
        return bool(self.image_token)

    @property
    def layers(self) -> str:
        """What names of the language model's layers begin with."""
        return f"{self.language}layers."

    @property
    def embeddings(self) -> str:
        """The name of the embeddings' weight; the head may share it."""
        return f"{self.language}embed_tokens.weight"

    @property
    def not_quantized(self) -> list[str]:
        """Modules that stay in 16 or 32 bits. Names match from the start; the list replaces the library's own."""
        return [HEAD, *filter(None, (self.vision, self.projector))]

    def is_quantized(self, module: str) -> bool:
        """Whether a linear layer of that name is quantized where a base is loaded in 4 bits."""
        return not module.startswith(tuple(self.not_quantized)) and not module.endswith(self.kept_whole)

    def module_name(self, name: str) -> str:
        """The module's name of a weight, or of what belongs to one, by its name in the base's files."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def picture_defaults(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """For what the picture settings of the base with that config.json leave out."""
        return self.picture_settings

    def targets(self, names: Sequence[str]) -> list[str]:
        """The names of linear layers that get an adapter, each once, as they are called here."""
        return list(dict.fromkeys(self.fused.get(name, name) for name in names))

    def parameter_name(self, module: str) -> str:
        """The network's parameter that a weight is held in: experts that files have one by one are held together."""
        module = re.sub(rf"({re.escape(self.experts)})\d+\.(gate|up)_proj\.weight$", r"\1gate_up_proj", module)
        return re.sub(rf"({re.escape(self.experts)})\d+\.down_proj\.weight$", r"\1down_proj", module)

    def is_mixture(self, config: Mapping[str, Any]) -> bool:
        """Whether a base is a mixture of experts, by its config.json."""
        return config.get("model_type") in self.mixtures

    def others(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Ends of names of two-dimensional weights of this base that are no linear layers."""
        return (*self.not_linear, *([self.router] if self.is_mixture(config) else []))

    def text_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The language model's part of config.json: a section, or in older files all of it."""
        text = config.get("text_config")
        return text if isinstance(text, dict) else config

    def vision_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The vision tower's part of config.json; empty where it has none."""
        vision = config.get("vision_config")
        return vision if isinstance(vision, dict) else {}

    def sizes(self, config: Mapping[str, Any]) -> Sizes:
        """Of the language model, by config.json or its part of it."""
        text = self.text_config(config)
        width, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        experts = int(text.get("num_experts_per_tok") or 0)
        return Sizes(
            layers=int(text["num_hidden_layers"]),
            width=width,
            heads=heads,
            key_value_heads=int(text.get("num_key_value_heads") or heads),
            head_size=int(text.get("head_dim") or width // heads),
            inner=experts * int(text["moe_intermediate_size"]) if experts else int(text["intermediate_size"]),
            copies=2 * experts,
            recurrent=int(text.get("linear_num_value_heads") or 0) * int(text.get("linear_value_head_dim") or 0),
        )

    def limit(self, config: Mapping[str, Any]) -> str:
        """Why a base of this family cannot be computed by the prefix tree; "" where it can."""
        text = self.text_config(config)
        layers, kind = text.get("layer_types"), text.get("model_type")
        if self.text_types and text is not config and kind not in self.text_types:
            return f"a language model of type {kind!r}"
        if text.get("use_sliding_window") or (isinstance(layers, list) and "sliding_attention" in layers):
            return "layers that attend within a sliding window, where each token must see its whole path"
        if text.get("attn_logit_softcapping"):
            return "attention scores with a soft cap (attn_logit_softcapping)"
        rope = text.get("rope_parameters") or text.get("rope_scaling")
        if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) == "longrope":
            return "positions that depend on the longest prompt of a batch (rope_type longrope)"
        if isinstance(layers, list) and layers[-1:] == ["linear_attention"]:
            return "linear attention in its last layer, where only the answers' tokens are computed"
        if int(text.get("linear_conv_kernel_dim") or 0) > 4:
            return "convolutions over more than 4 tokens (linear_conv_kernel_dim)"
        return ""
