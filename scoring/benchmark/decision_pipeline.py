"""transformers' own `pipeline("decision")` as a way to answer: one request a forward, with the checkpoint's prompt."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from scoring.checkpoints.decision_files import write_decision_files
from scoring.engine.batch_scorer import BatchScorer
from scoring.errors import ScoringError
from scoring.files.reading import read_json
from scoring.inputs.image_marks import parts_of
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.questions import Question

SIZES = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
Ask = Callable[[Question, Sequence[Image.Image]], list[float]]


class PipelineUnavailableError(ScoringError):
    """Why the pipeline cannot be measured here."""


def decision_pipeline(scorer: BatchScorer) -> Ask:
    """What asks transformers' pipeline about a question and its pictures: (K,) probabilities of its options.

    It uses the scorer's network, with the adapter that is in use. A question's hint is left out. Raises
    PipelineUnavailableError.
    """
    try:
        from transformers.decision import DecisionConfig
        from transformers.pipelines.decision import DecisionPipeline
    except ImportError:
        raise PipelineUnavailableError("transformers 5.17 or later is needed") from None
    plan = scorer.plan
    with tempfile.TemporaryDirectory() as folder:
        notes = write_decision_files(Path(folder), scorer.prepare.chat, plan.template, plan.calibrations[0])
        if notes:
            raise PipelineUnavailableError("; ".join(notes))
        config = DecisionConfig.from_pretrained(folder)
    processor = processor_of(plan.base, plan.policy) if scorer.prepare.chat.family.sees_pictures else None
    tokenizer = processor.tokenizer if processor else _tokenizer(plan.base)
    pipe = DecisionPipeline(
        model=scorer.model.network,
        tokenizer=tokenizer,
        processor=processor,
        device=scorer.model.device,
        decision_config=config,
    )

    def ask(question: Question, pictures: Sequence[Image.Image]) -> list[float]:
        state, assets = _with_placeholders(question, pictures)
        asked = {"type": "score", "criteria": list(question.options)}  # whose options may be equal, as rows' may
        request = {"state": state, "questions": {"q": asked}, **({"assets": assets} if assets else {})}
        return list(pipe(request)["q"]["probabilities"].values())

    return ask


def _with_placeholders(question: Question, pictures: Sequence[Image.Image]) -> tuple[str, dict[str, Image.Image]]:
    """A question's text with a name for each picture in its place, and the pictures by their names."""
    mark = "PICTURE"
    while any(mark in text for text in (question.question, *question.options)):
        mark += "_"
    assets = {f"{mark}{index};": picture for index, picture in enumerate(pictures)}
    parts = parts_of(question.question, len(pictures))
    return "".join(part if isinstance(part, str) else f"{mark}{part};" for part in parts), assets


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, trust_remote_code=False)


def processor_of(base: Path, policy: PixelPolicy) -> Any:
    """The base's processor, which cuts pictures as the policy does.

    transformers needs torchvision for it, because of videos; without that it is put together for Qwen3-VL.
    Raises PipelineUnavailableError.
    """
    if type(policy) is not PixelPolicy:
        raise PipelineUnavailableError("transformers' processor of this base has no budget of pixels that can be set")
    from transformers import AutoProcessor

    auto_processor: Any = AutoProcessor
    try:
        processor = auto_processor.from_pretrained(base, trust_remote_code=False)
    except (ImportError, ValueError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        if (read_json(base / "preprocessor_config.json") or {}).get("processor_class") != "Qwen3VLProcessor":
            raise PipelineUnavailableError(f"transformers makes no processor of this base here ({reason})") from None
        return _without_videos(base, policy)
    if getattr(processor, "image_processor", None) is None:
        raise PipelineUnavailableError("transformers makes no processor of pictures of this base here")
    processor.image_processor.size = _size_of(policy)
    return processor


def _size_of(policy: PixelPolicy) -> dict[str, int]:
    """The fewest and the most pixels of a picture, as Qwen's image processors name them."""
    return {"shortest_edge": policy.min_pixels, "longest_edge": policy.max_pixels}


def _without_videos(base: Path, policy: PixelPolicy) -> Any:
    """Qwen3-VL's processor of pictures alone, whose own constructor asks for one of videos."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    settings = read_json(base / "preprocessor_config.json") or {}
    chosen = {name: settings[name] for name in SIZES if name in settings}
    processor: Any = Qwen3VLProcessor.__new__(Qwen3VLProcessor)
    processor.image_processor = Qwen2VLImageProcessorPil(**chosen, size=_size_of(policy))
    processor.tokenizer, processor.video_processor, processor.audio_tokenizer = _tokenizer(base), None, None
    processor.chat_template = (base / "chat_template.jinja").read_text("utf-8")
    number_of = processor.tokenizer.convert_tokens_to_ids
    for kind in ("image", "video"):
        token = f"<|{kind}_pad|>"
        setattr(processor, f"{kind}_token", token)
        setattr(processor, f"{kind}_token_id", number_of(token))
        setattr(processor, f"{kind}_ids", [number_of(token)])
    for name in ("vision_start", "vision_end"):
        setattr(processor, f"{name}_token", f"<|{name}|>")
        setattr(processor, f"{name}_token_id", number_of(f"<|{name}|>"))
    processor.audio_ids = []
    return processor
