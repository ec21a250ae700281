"""Adapters and bases of every kind that PEFT can save and other tools write, made on a tiny random Qwen3-VL.

`KINDS` is the table of docs/foreign-checkpoints.md: what each kind is, and the words of its refusal, or that it works.
"""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMALL = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json")
FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Tensors = dict[str, torch.Tensor]


@dataclass
class Kind:
    """group: heading of the table. make: writes the checkpoint's folder, and returns it. refused: words of the message;
    "" where it works."""

    group: str
    name: str
    make: Callable[["Workshop"], Path]
    refused: str = ""


class Workshop:
    """A folder in which kinds are made: `base` (tied head), `untied`, and others on demand."""

    def __init__(self, folder: Path, demo_base: Path):
        self.folder, self.demo_base = folder, demo_base
        self.base, self.untied = self._base("base", tied=True), self._base("untied", tied=False)
        self.used = self.base  # of the current kind
        self.saved = folder / "saved"  # the current kind as PEFT saved it, before anything was changed
        self.networks: dict[Path, torch.nn.Module] = {}  # of the two own bases, as they were read
        self.loras: dict[str, Path] = {}  # by base and settings: as PEFT saved them

    def _base(self, name: str, tied: bool) -> Path:
        from transformers import AutoConfig, AutoModelForImageTextToText

        folder = self.folder / name
        folder.mkdir(parents=True)
        for file in SMALL:
            shutil.copy(self.demo_base / file, folder)
        config = json.loads((self.demo_base / "config.json").read_text())
        config["text_config"] |= {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 96,
            "tie_word_embeddings": tied,
        }
        config["vision_config"] |= {
            "hidden_size": 48,
            "depth": 2,
            "num_heads": 3,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [0],
        }
        config |= {"tie_word_embeddings": tied, "dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config))
        torch.manual_seed(0)
        network = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        for weight in network.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.15)
        network.save_pretrained(folder)
        return folder

    def network(self, base: Path | None = None, **options) -> torch.nn.Module:
        """transformers' own model of a base."""
        from transformers import AutoModelForImageTextToText

        base = base or self.used
        if base not in (self.base, self.untied) or options:
            return AutoModelForImageTextToText.from_pretrained(base, **{"dtype": torch.float32} | options).eval()
        if base not in self.networks:
            self.networks[base] = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()
        return copy.deepcopy(self.networks[base])

    def peft(self, config, base: Path | None = None, **options) -> Path:
        """A folder that PEFT saved, all trainable weights random."""
        from peft import get_peft_model

        torch.manual_seed(1)
        model = get_peft_model(self.network(base, **options), config)
        for name, weight in model.named_parameters():
            if weight.requires_grad and "magnitude" not in name and weight.is_floating_point():
                torch.nn.init.normal_(weight, std=0.1)
        return self.save(model)

    def save(self, model, **options) -> Path:
        folder = self.folder / "kind"
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, **options)
        shutil.rmtree(self.saved, ignore_errors=True)
        shutil.copytree(folder, self.saved)
        return folder

    def lora(self, base: Path | None = None, **settings) -> Path:
        from peft import LoraConfig

        settings = {"r": 4, "lora_alpha": 8, "target_modules": SEVEN, "task_type": "CAUSAL_LM"} | settings
        base = base or self.used
        key = f"{base} {settings}"
        if key not in self.loras:
            made = self.peft(LoraConfig(**settings), base)
            if base in (self.base, self.untied):
                self.loras[key] = shutil.copytree(made, self.folder / f"lora{len(self.loras)}")
            return made
        for folder in (self.folder / "kind", self.saved):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.loras[key], folder)
        return self.folder / "kind"

    def rewritten(self, change: Callable[[Tensors], Tensors], folder: Path | None = None, **config) -> Path:
        """A LoRA whose tensors and configuration are changed after PEFT saved them."""
        folder = folder or self.lora()
        save_file(change(load_file(folder / FILE)), folder / FILE)
        return self.configured(folder, **config)

    def configured(self, folder: Path | None = None, **config) -> Path:
        folder = folder or self.lora()
        values = json.loads((folder / CONFIG).read_text()) | config
        (folder / CONFIG).write_text(json.dumps(values))
        return folder

    def renamed(self, old: str, new: str, folder: Path | None = None, **config) -> Path:
        return self.rewritten(
            lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}, folder, **config
        )

    def on(self, base: Path) -> "Workshop":
        """The same, with another base for the current kind."""
        self.used = base
        return self

    def other_base(self, name: str, change: Callable[[dict], None] = lambda config: None) -> Path:
        """A copy of the base with a changed configuration."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def in_4_bits(self, kind: str = "nf4", double: bool = True, skip: list[str] | None = None) -> Path:
        """The base as `…-bnb-4bit` folders hold it."""
        from transformers import BitsAndBytesConfig

        folder = self.folder / f"{kind}-{double}-{bool(skip)}"
        if not folder.exists():
            quantization = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=kind,
                bnb_4bit_use_double_quant=double,
                bnb_4bit_compute_dtype=torch.float32,
                llm_int8_skip_modules=skip,
            )
            self.network(self.base, quantization_config=quantization).save_pretrained(folder)
            for file in SMALL:
                shutil.copy(self.base / file, folder)
        return folder


def _with(tensors: Tensors, piece: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    """One tensor changed: the first whose name contains `piece`."""
    key = next(key for key in sorted(tensors) if piece in key)
    return tensors | {key: value(tensors[key]).contiguous()}


def _without(tensors: Tensors, piece: str) -> Tensors:
    return {key: value for key, value in tensors.items() if piece not in key}


def _type(name: str, **settings) -> Callable[[Workshop], Path]:
    """An adapter of another type, as PEFT makes and saves it."""

    def make(shop: Workshop) -> Path:
        import peft

        settings_ = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings
        return shop.peft(getattr(peft, name)(**settings_))

    return make


def _converted(init: str) -> Callable[[Workshop], Path]:
    """Trained from such an initialisation, and converted to plain LoRA by PEFT."""

    def make(shop: Workshop) -> Path:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=4, lora_alpha=8, target_modules=SEVEN, init_lora_weights=init, task_type="CAUSAL_LM")
        torch.manual_seed(1)
        model = get_peft_model(shop.network(), config)
        model.peft_config["default"].init_lora_weights = True
        start = shop.folder / "start"
        shutil.rmtree(start, ignore_errors=True)
        model.save_pretrained(start)
        model.peft_config["default"].init_lora_weights = init
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data += 0.1 * torch.randn_like(weight)
        return shop.save(model, path_initial_model_for_weight_conversion=str(start))

    return make


def _quantized(**quantization) -> Callable[[Workshop], Path]:
    return lambda shop: shop.on(
        shop.other_base("quantized", lambda c: c.update(quantization_config=quantization))
    ).lora(shop.base)


def _beside(name: str) -> Callable[[Workshop], Path]:
    def make(shop: Workshop) -> Path:
        folder = shop.lora()
        (folder / name).write_bytes(b"weights")
        return folder

    return make


def _above(shop: Workshop) -> Path:
    folder = shop.lora()
    above = shop.folder / "run"
    shutil.rmtree(above, ignore_errors=True)
    shutil.copytree(folder, above / "checkpoint-500")
    return above


def _moved(old: str, new: str) -> Callable[[Workshop], Path]:
    def make(shop: Workshop) -> Path:
        folder = shop.lora()
        (folder / old).rename(folder / new)
        return folder

    return make


def _cut(shop: Workshop) -> Path:
    folder = shop.lora()
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-10])
    return folder


def _nested_processor(shop: Workshop) -> Path:
    base = shop.other_base("nested")
    settings = json.loads((base / "preprocessor_config.json").read_text())
    (base / "preprocessor_config.json").unlink()
    (base / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    return shop.on(base).lora()


def _no_processor(shop: Workshop) -> Path:
    base = shop.other_base("bare")
    (base / "preprocessor_config.json").unlink()
    return shop.on(base).lora()


def _float8(shop: Workshop) -> Path:
    base = shop.other_base("float8")
    weights = load_file(base / "model.safetensors")
    save_file(
        _with(weights, "q_proj", lambda w: w.to(torch.float8_e4m3fn)), base / "model.safetensors", {"format": "pt"}
    )
    return shop.on(base).lora(shop.base)


def _two_files(shop: Workshop) -> Path:
    base = shop.other_base("two")
    weights = load_file(base / "model.safetensors")
    save_file({name: weight * 1.5 for name, weight in weights.items()}, base / "old.safetensors", {"format": "pt"})
    return shop.on(base).lora(shop.base)


def _sharded(shop: Workshop) -> Path:
    folder = shop.folder / "sharded"
    shutil.rmtree(folder, ignore_errors=True)
    shop.network().save_pretrained(folder, max_shard_size="200KB")
    for file in SMALL:
        shutil.copy(shop.base / file, folder)
    return folder


def _doubled(tensors: Tensors) -> Tensors:
    more = {key.replace("model.language_model.layers", "model.layers"): value + 1 for key, value in tensors.items()}
    return tensors | more


WORKS, TYPES, INITS, PARTS, KEYS, FILES, BASES = (
    "LoRA as PEFT saves it",
    "Types of adapters",
    "Initialisations that change the base",
    "Parts beside LoRA",
    "Spellings of keys",
    "Partial, damaged and odd files",
    "Bases",
)
TEXT = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
OLD = "^(?!.*visual).*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$"
DYNAMIC = ["lm_head", "model.language_model.layers.0.self_attn", "model.language_model.layers.1.mlp"]
VISION = ["attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2", "merger.linear_fc1", "q_proj"]

KINDS = [
    Kind(WORKS, "on the seven projections", lambda shop: shop.lora()),
    Kind(WORKS, "on `q_proj` and `v_proj`", lambda shop: shop.lora(target_modules=["q_proj", "v_proj"])),
    Kind(WORKS, "on `all-linear`, the vision tower too", lambda shop: shop.lora(target_modules="all-linear")),
    Kind(WORKS, "on layers of the vision tower and its merger", lambda shop: shop.lora(target_modules=VISION)),
    Kind(WORKS, "targets by a regular expression", lambda shop: shop.lora(target_modules=TEXT)),
    Kind(WORKS, "on the head, apart", lambda shop: shop.on(shop.untied).lora(target_modules=[*SEVEN, "lm_head"])),
    Kind(WORKS, "on the head, tied to the embeddings", lambda shop: shop.lora(target_modules=[*SEVEN, "lm_head"])),
    Kind(WORKS, "on the head alone", lambda shop: shop.lora(target_modules=["lm_head"])),
    Kind(WORKS, "rsLoRA", lambda shop: shop.lora(use_rslora=True)),
    Kind(WORKS, "DoRA", lambda shop: shop.lora(use_dora=True)),
    Kind(
        WORKS, "`rank_pattern`", lambda shop: shop.lora(rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 6})
    ),
    Kind(WORKS, "`alpha_pattern`", lambda shop: shop.lora(alpha_pattern={"layers.1.mlp.up_proj": 32, "o_proj": 1})),
    Kind(WORKS, "patterns with rsLoRA", lambda shop: shop.lora(use_rslora=True, rank_pattern={r".*\.1\..*": 2})),
    Kind(WORKS, "`layers_to_transform`", lambda shop: shop.lora(layers_to_transform=[1], layers_pattern="layers")),
    Kind(WORKS, "`exclude_modules`", lambda shop: shop.lora(exclude_modules=["mlp.up_proj"])),
    Kind(WORKS, "`init_lora_weights`: gaussian", lambda shop: shop.lora(init_lora_weights="gaussian")),
    Kind(WORKS, "`init_lora_weights`: orthogonal", lambda shop: shop.lora(init_lora_weights="orthogonal")),
    Kind(WORKS, "`init_lora_weights`: mica", lambda shop: shop.lora(init_lora_weights="mica")),
    Kind(WORKS, "`init_lora_weights`: false", lambda shop: shop.lora(init_lora_weights=False)),
    Kind(WORKS, "PiSSA, converted by PEFT", _converted("pissa")),
    Kind(WORKS, "OLoRA, converted by PEFT", _converted("olora")),
    Kind(WORKS, "with dropout", lambda shop: shop.lora(lora_dropout=0.3)),
    Kind(WORKS, "tensors in float16", lambda shop: shop.rewritten(lambda t: {k: v.half() for k, v in t.items()})),
    Kind(WORKS, "tensors in bfloat16", lambda shop: shop.rewritten(lambda t: {k: v.bfloat16() for k, v in t.items()})),
    Kind(WORKS, "optimizer and scheduler beside it", _beside("optimizer.pt")),
    Kind(INITS, "PiSSA", lambda shop: shop.lora(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    Kind(INITS, "PiSSA by iterations", lambda shop: shop.lora(init_lora_weights="pissa_niter_4"), "'pissa_niter_4'"),
    Kind(INITS, "OLoRA", lambda shop: shop.lora(init_lora_weights="olora"), "init_lora_weights is 'olora'"),
    Kind(INITS, "LoftQ", lambda shop: shop.configured(init_lora_weights="loftq"), "init_lora_weights is 'loftq'"),
    Kind(INITS, "CorDA", lambda shop: shop.configured(init_lora_weights="corda"), "init_lora_weights is 'corda'"),
    Kind(INITS, "LoRA-GA", lambda shop: shop.configured(init_lora_weights="lora_ga"), "init_lora_weights is 'lora_ga'"),
    Kind(INITS, "one that is not known", lambda shop: shop.configured(init_lora_weights="new"), "init_lora_weights is"),
    Kind(TYPES, "LoHa", _type("LoHaConfig", r=4), "an adapter of type LOHA; only LORA is applied"),
    Kind(TYPES, "LoKr", _type("LoKrConfig", r=4), "type LOKR"),
    Kind(TYPES, "IA3", _type("IA3Config", feedforward_modules=[]), "type IA3"),
    Kind(TYPES, "OFT", _type("OFTConfig", oft_block_size=4, r=0), "type OFT"),
    Kind(TYPES, "BOFT", _type("BOFTConfig", boft_block_size=4, target_modules=["q_proj"]), "type BOFT"),
    Kind(TYPES, "VeRA", _type("VeraConfig", r=4, target_modules=["q_proj"]), "type VERA"),
    Kind(TYPES, "AdaLoRA", _type("AdaLoraConfig", init_r=4, total_step=10), "type ADALORA"),
    Kind(TYPES, "FourierFT", _type("FourierFTConfig", n_frequency=10), "type FOURIERFT"),
    Kind(TYPES, "RandLoRA", _type("RandLoraConfig", r=4, target_modules=["q_proj"]), "type RANDLORA"),
    Kind(TYPES, "HRA", _type("HRAConfig", r=4), "type HRA"),
    Kind(TYPES, "SHiRA", _type("ShiraConfig", r=4), "type SHIRA"),
    Kind(TYPES, "LayerNorm tuning", _type("LNTuningConfig", target_modules=["input_layernorm"]), "type LN_TUNING"),
    Kind(TYPES, "trained tokens", lambda shop: shop.configured(peft_type="TRAINABLE_TOKENS"), "type TRAINABLE_TOKENS"),
    Kind(TYPES, "prompt tuning", lambda shop: shop.configured(peft_type="PROMPT_TUNING"), "type PROMPT_TUNING"),
    Kind(TYPES, "none named", lambda shop: shop.configured(peft_type=None), "peft_type is missing"),
    Kind(
        PARTS,
        "`modules_to_save`: the head",
        lambda shop: shop.on(shop.untied).lora(modules_to_save=["lm_head"]),
        "modules_to_save: modules saved whole (lm_head)",
    ),
    Kind(
        PARTS,
        "`modules_to_save`: the merger",
        lambda shop: shop.lora(modules_to_save=["merger"]),
        "modules_to_save: modules saved whole (merger)",
    ),
    Kind(
        PARTS,
        "modules saved whole, not named in the configuration",
        lambda shop: shop.configured(shop.lora(modules_to_save=["merger"]), modules_to_save=None),
        "modules saved whole: not supported",
    ),
    Kind(PARTS, "trained biases", lambda shop: shop.lora(bias="all", target_modules=["attn.qkv"]), "bias is 'all'"),
    Kind(
        PARTS,
        "a bias of lora_B",
        lambda shop: shop.lora(lora_bias=True, target_modules=["attn.qkv"]),
        "lora_bias: a bias of lora_B",
    ),
    Kind(
        PARTS,
        "`trainable_token_indices`",
        lambda shop: shop.lora(trainable_token_indices=[5, 6]),
        "trainable_token_indices: trained tokens",
    ),
    Kind(
        PARTS,
        "LoRA on the embeddings",
        lambda shop: shop.on(shop.untied).lora(target_modules=["q_proj", "embed_tokens"]),
        "LoRA on embeddings: not supported",
    ),
    Kind(
        PARTS,
        "resized embeddings",
        lambda shop: shop.rewritten(
            lambda t: t | {"base_model.model.model.language_model.embed_tokens.weight": torch.ones(9, 64)}
        ),
        "modules saved whole: not supported",
    ),
    Kind(
        PARTS,
        "LoRA on the patches' convolution",
        lambda shop: shop.lora(target_modules=["q_proj", "patch_embed.proj"]),
        "LoRA on something other than a linear layer",
    ),
    Kind(
        PARTS,
        "DoRA on the head",
        lambda shop: shop.on(shop.untied).lora(use_dora=True, target_modules=["lm_head"]),
        "DoRA on lm_head is not supported",
    ),
    Kind(
        PARTS, "aLoRA", lambda shop: shop.lora(alora_invocation_tokens=[5]), "alora_invocation_tokens: activated LoRA"
    ),
    Kind(PARTS, "QA-LoRA", lambda shop: shop.configured(use_qalora=True), "use_qalora: QA-LoRA"),
    Kind(PARTS, "repeated layers", lambda shop: shop.configured(layer_replication=[[0, 2]]), "layer_replication"),
    Kind(PARTS, "LoRA on parameters", lambda shop: shop.configured(target_parameters=["x"]), "target_parameters"),
    Kind(
        PARTS, "weights of another tool beside it", _beside("non_lora_state_dict.bin"), "non_lora_state_dict.bin beside"
    ),
    Kind(PARTS, "a trained vision tower beside it", _beside("vit.safetensors"), "vit.safetensors beside"),
    Kind(
        KEYS,
        "`alpha_pattern` in the spelling of an older file",
        lambda shop: shop.renamed(
            "model.language_model.layers",
            "model.layers",
            folder=shop.lora(alpha_pattern={"model.language_model.layers.0.mlp.up_proj": 64}),
            alpha_pattern={"model.layers.0.mlp.up_proj": 64},
        ),
    ),
    Kind(KEYS, "with the adapter's name", lambda shop: shop.renamed(".weight", ".default.weight")),
    Kind(
        KEYS,
        "text-only: `model.layers`",
        lambda shop: shop.renamed("model.language_model.layers", "model.layers", target_modules=OLD),
    ),
    Kind(
        KEYS,
        "older: `language_model.model.layers`",
        lambda shop: shop.renamed(
            "model.model.language_model.layers", "model.language_model.model.layers", target_modules=OLD
        ),
    ),
    Kind(KEYS, "without PEFT's prefix", lambda shop: shop.renamed("base_model.model.", "")),
    Kind(KEYS, "DataParallel: `module.`", lambda shop: shop.renamed("base_model.model.", "module.base_model.model.")),
    Kind(
        KEYS,
        "torch.compile: `_orig_mod.`",
        lambda shop: shop.renamed("base_model.model.", "base_model.model._orig_mod."),
    ),
    Kind(
        KEYS, "FSDP: `_fsdp_wrapped_module.`", lambda shop: shop.renamed("layers.0.", "layers.0._fsdp_wrapped_module.")
    ),
    Kind(
        KEYS,
        "activation checkpointing: `_checkpoint_wrapped_module.`",
        lambda shop: shop.renamed("layers.1.", "layers.1._checkpoint_wrapped_module."),
    ),
    Kind(
        KEYS,
        "one module under two spellings",
        lambda shop: shop.rewritten(_doubled),
        "the same tensor in two spellings",
    ),
    Kind(
        FILES,
        "lora_B missing",
        lambda shop: shop.rewritten(lambda t: _without(t, "0.mlp.up_proj.lora_B")),
        "lack their",
    ),
    Kind(
        FILES,
        "a layer missing",
        lambda shop: shop.rewritten(lambda t: _without(t, "layers.1.self_attn")),
        "have no adapter in the file",
    ),
    Kind(
        FILES,
        "a layer that is not targeted",
        lambda shop: shop.configured(target_modules=SEVEN[1:]),
        "target_modules in adapter_config.json does not name",
    ),
    Kind(
        FILES,
        "a layer that the base lacks",
        lambda shop: shop.renamed("layers.1.", "layers.7."),
        "no module of the base has that name",
    ),
    Kind(
        FILES,
        "another shape",
        lambda shop: shop.rewritten(lambda t: _with(t, "q_proj.lora_A", lambda w: w[:, 1:])),
        "have another shape than the base's",
    ),
    Kind(FILES, "another rank than the configuration's", lambda shop: shop.configured(r=8), "have another rank"),
    Kind(
        FILES,
        "rank 0",
        lambda shop: shop.rewritten(lambda t: _with(t, "q_proj.lora_A", lambda w: w[:0])),
        "empty, as ZeRO-3 leaves weights",
    ),
    Kind(FILES, "rank 0 in the configuration", lambda shop: shop.configured(r=0), "expected ranks of at least 1"),
    Kind(FILES, "alpha 0", lambda shop: shop.configured(lora_alpha=0), "lora_alpha is 0"),
    Kind(
        FILES,
        "empty tensors (ZeRO-3)",
        lambda shop: shop.rewritten(lambda t: {key: torch.empty(0) for key in t}),
        "empty, as ZeRO-3 leaves weights",
    ),
    Kind(
        FILES,
        "NaN",
        lambda shop: shop.rewritten(lambda t: _with(t, "q_proj.lora_B", lambda w: w * torch.nan)),
        "NaN or infinite values",
    ),
    Kind(
        FILES,
        "infinity in bfloat16",
        lambda shop: shop.rewritten(lambda t: _with(t, "q_proj.lora_A", lambda w: (w / 0).bfloat16())),
        "NaN or infinite values",
    ),
    Kind(
        FILES,
        "flattened tensors (FSDP)",
        lambda shop: shop.rewritten(lambda t: _with(t, "q_proj.lora_A", lambda w: w.flatten())),
        "flattened, as FSDP leaves weights",
    ),
    Kind(
        FILES,
        "DoRA's magnitudes of another shape",
        lambda shop: shop.rewritten(lambda t: _with(t, "magnitude", lambda w: w[:1]), shop.lora(use_dora=True)),
        "have another shape than the base's",
    ),
    Kind(FILES, "alpha NaN", lambda shop: shop.configured(lora_alpha=float("nan")), "lora_alpha"),
    Kind(
        FILES,
        "no regular expression",
        lambda shop: shop.configured(target_modules="(q_proj"),
        "is not a regular expression",
    ),
    Kind(
        FILES,
        "integers",
        lambda shop: shop.rewritten(lambda t: _with(t, "q_proj.lora_A", lambda w: w.to(torch.int8))),
        "stored as I8",
    ),
    Kind(
        FILES,
        "every lora_B zero",
        lambda shop: shop.rewritten(lambda t: {k: v * 0 if "lora_B" in k else v for k, v in t.items()}),
        "every lora_B is zero",
    ),
    Kind(FILES, "cut off", _cut, "cut off"),
    Kind(FILES, "pickled weights", _moved(FILE, "adapter_model.bin"), "pickles can run code"),
    Kind(
        FILES,
        "in several files",
        _moved(FILE, "adapter_model-00001-of-00002.safetensors"),
        "an adapter in several files",
    ),
    Kind(FILES, "a folder above it", _above, "name one of the checkpoints inside"),
    Kind(BASES, "a whole model", lambda shop: shop.base),
    Kind(BASES, "a whole model in shards", _sharded),
    Kind(BASES, "in bitsandbytes' 4 bits, adapter made on it", lambda shop: shop.on(shop.in_4_bits()).lora()),
    Kind(
        BASES,
        "in 4 bits, adapter made on the 16-bit base",
        lambda shop: shop.on(shop.in_4_bits()).lora(shop.base),
    ),
    Kind(BASES, "in 4 bits: fp4, not quantized twice", lambda shop: shop.on(shop.in_4_bits("fp4", False)).lora()),
    Kind(
        BASES,
        "in 4 bits, with an adapter on the vision tower",
        lambda s: s.on(s.in_4_bits()).lora(target_modules=VISION),
    ),
    Kind(BASES, "in 4 bits, with DoRA", lambda shop: shop.on(shop.in_4_bits()).lora(use_dora=True)),
    Kind(BASES, "with `processor_config.json` alone", _nested_processor),
    Kind(BASES, "without picture settings", _no_processor, "neither processor_config.json"),
    Kind(
        BASES,
        "in bitsandbytes' 8 bits",
        _quantized(quant_method="bitsandbytes", load_in_8bit=True),
        "bitsandbytes in 8 bits",
    ),
    Kind(BASES, "GPTQ", _quantized(quant_method="gptq", bits=4), "quantized by gptq"),
    Kind(BASES, "AWQ", _quantized(quant_method="awq", bits=4), "quantized by awq"),
    Kind(BASES, "FP8", _quantized(quant_method="fp8"), "quantized by fp8"),
    Kind(BASES, "compressed-tensors", _quantized(quant_method="compressed-tensors"), "quantized by compressed-tensors"),
    Kind(
        BASES,
        "in 4 bits but for some layers, as Unsloth's dynamic ones",
        lambda s: s.on(s.in_4_bits(skip=DYNAMIC)).lora(),
    ),
    Kind(
        BASES,
        "in 4 bits by its configuration alone",
        _quantized(quant_method="bitsandbytes", load_in_4bit=True),
        "none is",
    ),
    Kind(BASES, "another file of weights beside `model.safetensors`", _two_files),
    Kind(BASES, "weights in float8 without a word", _float8, "is stored as F8_E4M3"),
    Kind(
        BASES,
        "another family",
        lambda shop: shop.on(shop.other_base("other", lambda c: c.update(model_type="llava"))).lora(shop.base),
        "model type 'llava'",
    ),
    Kind(BASES, "none named", lambda shop: shop.configured(base_model_name_or_path=None), "names no base"),
]


def table() -> str:
    """The kinds as docs/foreign-checkpoints.md lists them."""
    lines = []
    for group in dict.fromkeys(kind.group for kind in KINDS):
        lines += [f"### {group}", "", "| what | |", "| --- | --- |"]
        for kind in KINDS:
            if kind.group == group:
                lines.append(f"| {kind.name} | {f'refused: “{kind.refused}”' if kind.refused else 'works'} |")
        lines.append("")
    return "\n".join(lines)
