"""Golden numbers of the families: ids and patches as the libraries' own processors make them, whole.

    python -m tests.shared.golden

Needs torchvision, which the tests do not; writes tests/cases/families.json, with the versions that made it.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from tests.shared.families import CONFIGS, PROCESSORS, SEEING, TILE, tiny_base

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "cases" / "families.json"
PIXELS = 28 * 28 * 20
OPTIONS = ("고양이", "강아지", "말", "토끼")


def picture() -> Image.Image:
    """260 x 180 pixels of smooth colours."""
    levels = np.arange(9 * 13 * 3).reshape(9, 13, 3) * 7919 % 251
    return Image.fromarray(levels.astype(np.uint8)).resize((260, 180), Image.Resampling.BILINEAR)


def question(pictures: bool) -> Question:
    """With the picture, or in words alone."""
    shown = (picture(),) if pictures else ()
    return Question("1", 1, shown, "이 사진에서 무엇이 보이나요?", OPTIONS, task_hint="물체를 보세요.")


def sample(patches: NDArray[Any]) -> dict[str, Any]:
    """Of patches: their shape, mean, and every so many-th value."""
    flat = patches.reshape(-1).astype(np.float64)
    return {"shape": [*patches.shape], "mean": flat.mean(), "values": flat[:: len(flat) // 40].tolist()}


def made_by_the_library(base: Path, model_type: str) -> dict[str, Any]:
    """Ids of the prompt and its picture by the family's own processor; by its tokenizer where it sees no picture."""
    from transformers import AutoProcessor, AutoTokenizer

    sees_pictures = model_type in SEEING
    row = question(sees_pictures)
    system, user = PromptTemplate().render(row.question, row.options, row.task_hint)
    content: Any = [{"type": "image"}, {"type": "text", "text": user}] if sees_pictures else user
    messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    if model_type == "internvl":
        _name_tokens(base)
    processor = (AutoProcessor if sees_pictures else AutoTokenizer).from_pretrained(base)
    variables = {"enable_thinking": False, "date_string": "26 Jul 2024"}  # the date that Llama's template has by itself
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **variables)
    if not sees_pictures:
        return {"ids": processor(text, add_special_tokens=False)["input_ids"]}
    limit = PROCESSORS[model_type][1] * PIXELS
    budget: dict[str, Any] = {"size": {"shortest_edge": limit, "longest_edge": limit}}
    if model_type == "internvl":
        budget = {"max_patches": PIXELS // TILE**2}
    made = processor(images=[picture()], text=[text], return_tensors="np", **budget)
    return {"ids": made["input_ids"][0].tolist(), "patches": sample(made["pixel_values"])}


def _name_tokens(base: Path) -> None:
    """What InternVL's processor asks of its tokenizer, and how many tokens a tile has."""
    path = base / "tokenizer_config.json"
    tokens = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    settings = json.loads(path.read_text()) | {"extra_special_tokens": tokens | {"video_token": "<video>"}}
    path.write_text(json.dumps(settings))
    processor = {"processor_class": "InternVLProcessor", "image_seq_length": (TILE // 28) ** 2}
    (base / "processor_config.json").write_text(json.dumps(processor))


def main() -> None:
    """Write the file."""
    import torchvision
    import transformers

    golden: dict[str, Any] = {"transformers": transformers.__version__, "torchvision": torchvision.__version__}
    with TemporaryDirectory() as folder:
        for model_type in CONFIGS:
            base = tiny_base(model_type, ROOT / "demo" / "base", Path(folder) / model_type)
            golden[model_type] = made_by_the_library(base, model_type)
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
