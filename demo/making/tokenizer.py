"""A small byte-level BPE tokenizer with Qwen's control tokens, and the processor's files -> `build/base/`.

    python -m demo.making.tokenizer

4,096 ids: trained on the pictures' names, on pretraining conversations and on the sentences of the tables
and of the default prompt, so that a prompt is about 110 tokens long.
"""

import json
import shutil

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from demo.making import BASE, DEMO
from demo.making.conversations import CHOOSE, Conversations
from demo.making.pictures import SIDE, read_pictures
from demo.making.vocabulary import CATEGORIES, COLORS
from demo.making.wording import TABLE_HINTS, TABLE_QUESTIONS
from scoring.inputs.prompt import PromptTemplate

SIZE = 4096
CONTROL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# How Qwen's tokenizer cuts text into words, numbers (digit by digit), signs and white space.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def corpus(conversations: int = 20_000):
    """The texts that the merges are learned from; what must be short stands there often."""
    pictures = read_pictures()
    for picture in pictures:
        yield from [picture.en, picture.ko, " " + picture.en, " " + picture.ko] * 4
    talk = Conversations([p for p in pictures if p.split == "pretrain"], CHOOSE, seed=1)
    for _ in range(conversations):
        yield from (text for text, _ in next(talk)[1])
    fixed = [*PromptTemplate().render("", ["", "", "", ""], " "), *CATEGORIES.values(), *COLORS.values()]
    fixed += [
        text
        for table in (TABLE_QUESTIONS,)
        for by_language in table.values()
        for texts in by_language.values()
        for text in texts
    ]
    fixed += [text for by_language in TABLE_HINTS.values() for text in by_language.values()]
    yield from fixed * 200


def make() -> None:
    """Train and write the tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=SIZE - len(CONTROL),
            min_frequency=2,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.add_special_tokens(CONTROL)
    BASE.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(BASE / "tokenizer.json"))
    shutil.copy(DEMO / "making" / "chat_template.jinja", BASE)
    _write(
        BASE / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 2048,
            "clean_up_tokenization_spaces": False,
        },
    )
    _write(
        BASE / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen3VLProcessor",
            "size": {"shortest_edge": SIDE**2, "longest_edge": SIDE**2},
            "patch_size": 16,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "do_resize": True,
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "do_convert_rgb": True,
        },
    )
    system, user = PromptTemplate().render("", ["", "", "", ""], " ")
    print(
        f"{tokenizer.get_vocab_size()} ids; system prompt {len(tokenizer.encode(system).ids)}, "
        f"user template {len(tokenizer.encode(user).ids)} tokens"
    )


def _write(path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    make()
