"""Train the base model from scratch in five stages -> `build/base/model.safetensors`.

    python -m demo.making.pretrain                      # one GPU, under 20 minutes
    python -m demo.making.pretrain --stages see         # one stage at a time; each starts from the one before
    python -m demo.making.pretrain --scale 0.002 --batch 8 --workers 1      # a smoke test on a CPU

1. see: naming, captions, questions. Letters stay at chance, pictures are learned.
2. choose: marks and look-ups beside the questions; letters leave chance within some hundred steps.
3. refine: the same again, starting at a high learning rate, until unseen pictures are answered well.
4. locate: mostly pictures of four corners. The two steps of a choice between them are also asked alone.
5. follow: a few steps on longer instructions with the vision tower frozen, without the default prompt itself.
   Else the model takes the words "a, b, c, d" at the end of that prompt for options.

Each stage prints, every few seconds, losses and accuracies on its own data, and two accuracies on pictures that
pretraining never sees: `unseen` (questions in its own wording) and `prompt` (240 rows of train.csv in the default
prompt).
"""

import argparse
import csv
import json
import math
import time
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from demo.making import BASE, BUILD, DEMO
from demo.making.canvas import draw, load_drawings, places
from demo.making.conversations import CHOOSE, CHOOSE_LATE, FOLLOW, LOCATE, SEE, Conversations, Curriculum
from demo.making.model import compile_layers, forward, new_model, patchify
from demo.making.pictures import Picture, read_pictures
from scoring.inputs.pictures import PixelPolicy, read_picture
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.tokens import ChatTokenizer, mrope_positions

GRIDS = {(12, 12): 0.6, (10, 12): 0.14, (12, 10): 0.14, (8, 14): 0.06, (14, 8): 0.06}
WEIGHTS = {"letter": 1.0, "text": 0.4, "mark": 0.5, "lookup": 0.3}
END_OF_LETTER = 0.05  # weight of <|im_end|> after a letter, which is easy to learn
CONCEPT_WEIGHT = 0.3  # of the loss that names the concept from the mean picture token


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser: cosine from `rate`, or constant after the warm-up where vision is frozen."""

    curriculum: Curriculum
    later: Curriculum  # from 60 % of the steps on
    steps: int
    batch: int
    rate: float
    freeze_vision: bool = False


STAGES = {
    "see": Stage(SEE, SEE, steps=1_200, batch=512, rate=1.5e-3),
    "choose": Stage(CHOOSE, CHOOSE_LATE, steps=6_800, batch=384, rate=1.2e-3),
    "refine": Stage(CHOOSE, CHOOSE_LATE, steps=6_000, batch=384, rate=1.0e-3),
    "locate": Stage(LOCATE, LOCATE, steps=1_700, batch=384, rate=1.0e-3),
    "follow": Stage(FOLLOW, FOLLOW, steps=40, batch=128, rate=3e-4, freeze_vision=True),
}
BEFORE = {"choose": "see", "refine": "choose", "locate": "refine", "follow": "locate"}


# ------------------------------------------------------------------ batches
def collate(samples, grid: tuple[int, int], tokenizer: Tokenizer) -> dict:
    """Scenes and texts as tensors: `source` are the places of the padded batch that predict `target` with `weight`."""
    image, pad = tokenizer.token_to_id("<|image_pad|>"), tokenizer.token_to_id("<|endoftext|>")
    count = grid[0] * grid[1] // 4
    encoded = iter(
        tokenizer.encode_batch([text for _, pieces in samples for text, _ in pieces], add_special_tokens=False)
    )
    rows = []
    for _, pieces in samples:
        ids, weights = [], []
        for (_, kind), piece in zip(pieces, encoded):
            ids += piece.ids
            weights += [WEIGHTS.get(kind, 0.0)] * len(piece.ids)
            if kind in ("letter", "lookup"):
                weights[-1] = END_OF_LETTER
        start = ids.index(image)
        ids[start : start + 1], weights[start : start + 1] = [image] * count, [0.0] * count
        rows.append((ids, weights, start))
    length = -(-max(len(ids) for ids, _, _ in rows) // 32) * 32
    ids, weights = np.full((len(rows), length), pad), np.zeros((len(rows), length), np.float32)
    positions = np.zeros((3, len(rows), length), np.int64)
    for number, (row, weight, start) in enumerate(rows):
        ids[number, : len(row)], weights[number, : len(row)] = row, weight
        positions[:, number] = mrope_positions(length, start, (1, *grid))
    row, column = np.nonzero(weights[:, 1:])
    return {
        "grid": grid,
        "ids": torch.from_numpy(ids),
        "positions": torch.from_numpy(positions),
        "source": torch.from_numpy(row * length + column),
        "target": torch.from_numpy(ids[row, column + 1]),
        "weight": torch.from_numpy(weights[row, column + 1]),
        "places": torch.from_numpy(places([s for s, _ in samples])),
    }


class Batches(IterableDataset):
    """Endless batches of one stage; each worker has its own random stream."""

    def __init__(self, stage: Stage, pictures: list[Picture], batch: int, steps: int, seconds: float):
        self.stage, self.pictures, self.batch, self.steps, self.seconds = stage, pictures, batch, steps, seconds

    def __iter__(self):
        torch.set_num_threads(1)
        tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
        worker = get_worker_info()
        seed, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        talk, start, made = Conversations(self.pictures, self.stage.curriculum, 1000 + seed), time.time(), 0
        while True:
            late = max(made * workers / self.steps, (time.time() - start) / self.seconds) > 0.6
            talk.curriculum = self.stage.later if late else self.stage.curriculum
            samples = sorted(islice(talk, 4 * self.batch), key=lambda sample: sum(len(text) for text, _ in sample[1]))
            for quarter in talk.rng.sample(range(4), 4):  # batches of like lengths, in random order
                grid = talk.rng.choices(list(GRIDS), list(GRIDS.values()))[0]
                yield collate(samples[quarter * self.batch : (quarter + 1) * self.batch], grid, tokenizer)
                made += 1


# ------------------------------------------------------------------ what is watched
def unseen_questions(pictures: list[Picture], count: int, tokenizer: Tokenizer) -> list[dict]:
    """Batches of choices about pictures of the `train` split, in pretraining's wording."""
    talk = Conversations(
        [p for p in pictures if p.split == "train"], Curriculum(0.35, (1,), 0.2, 0, (1, 0, 0), 0), seed=7
    )
    chosen = list(islice((sample for sample in talk if any(kind == "letter" for _, kind in sample[1])), count))
    return [collate(chosen[first : first + 256], (12, 12), tokenizer) for first in range(0, count, 256)]


def prompt_rows(count: int) -> tuple[torch.Tensor, list, list[str]]:
    """Patches, token sequences and answers of the first rows of train.csv in the default prompt."""
    chat, policy, template = ChatTokenizer(BASE), PixelPolicy.of_base(BASE), PromptTemplate()
    with open(DEMO / "train.csv", encoding="utf-8", newline="") as file:
        rows = list(islice(csv.DictReader(file), count))
    texts = [template.render(row["question"], [row[letter] for letter in "abcd"], row["task_hint"]) for row in rows]
    patches = np.stack([policy.patches(read_picture(DEMO / row["path"])) for row in rows])
    return (
        torch.from_numpy(patches),
        [chat.encode(*text, (1, 12, 12)) for text in texts],
        [row["answer"] for row in rows],
    )


class Watch:
    """Accuracies on what pretraining never sees."""

    def __init__(self, pictures, tokenizer, device, count):
        self.device, self.letters = device, [tokenizer.token_to_id(letter) for letter in "abcd"]
        self.unseen, self.prompt = unseen_questions(pictures, count, tokenizer), prompt_rows(min(count, 240))

    @torch.no_grad()
    def __call__(self, model, drawings) -> dict[str, float]:
        right = total = 0
        for batch in self.unseen:
            batch = to_device(batch, self.device)
            logits = logits_of(model, drawings, batch, disturb=False)[0]
            asked = batch["weight"] == WEIGHTS["letter"]
            right += (logits[asked].argmax(1) == batch["target"][asked]).sum().item()
            total += asked.sum().item()
        patches, sequences, answers = self.prompt
        length = max(len(sequence.ids) for sequence in sequences)
        ids, positions = (
            torch.zeros(len(answers), length, dtype=torch.long),
            torch.zeros(3, len(answers), length, dtype=torch.long),
        )
        for number, sequence in enumerate(sequences):
            ids[number, : len(sequence.ids)] = torch.from_numpy(sequence.ids)
            positions[:, number, : len(sequence.ids)] = torch.from_numpy(sequence.positions())
        with autocast(self.device):
            hidden, _ = forward(
                model, patches.to(self.device), (12, 12), ids.to(self.device), positions.to(self.device)
            )
            last = hidden[torch.arange(len(answers)), [len(sequence.ids) - 1 for sequence in sequences]]
            chosen = model.lm_head(last)[:, self.letters].float().argmax(1).tolist()
        prompt = sum("abcd"[letter] == answer for letter, answer in zip(chosen, answers)) / len(answers)
        return {"unseen": round(right / total, 3), "prompt": round(prompt, 3)}


# ------------------------------------------------------------------ training
def autocast(device: str):
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def to_device(batch: dict, device: str) -> dict:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def logits_of(model, drawings, batch: dict, disturb: bool = True):
    """(targets, vocabulary) float32 logits and (B, N, D) picture tokens."""
    with torch.no_grad():
        patches = patchify(draw(drawings, batch["places"], len(batch["ids"]), batch["grid"], disturb))
    with autocast(patches.device.type):
        hidden, pictures = forward(model, patches, batch["grid"], batch["ids"], batch["positions"])
        logits = model.lm_head(hidden.flatten(0, 1)[batch["source"]])
    return logits.float(), pictures


def concept_targets(batch: dict, concepts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with a single large picture, and its concept."""
    alone = batch["places"][batch["places"][:, 1] == 0]
    return alone[:, 0].long(), concepts[alone[:, 2].long()]


def run(name: str, stage: Stage, model, drawings, pictures, watch: Watch, device: str, args, log) -> None:
    """Train one stage and leave its weights in `build/NAME.safetensors`."""
    steps, batch_size = max(2, round(stage.steps * args.scale)), args.batch or stage.batch
    pretraining = [p for p in pictures if p.split == "pretrain"]
    codes = sorted({p.code for p in pictures})
    concepts = torch.tensor([codes.index(p.code) for p in pictures], device=device)
    classifier = torch.nn.Linear(model.config.text_config.hidden_size, len(codes)).to(device)
    model.model.visual.requires_grad_(not stage.freeze_vision)
    trained = [p for p in [*model.parameters(), *classifier.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=stage.rate,
        betas=(0.9, 0.97),
        fused=device == "cuda",
    )
    loader = iter(
        DataLoader(
            Batches(stage, pretraining, batch_size, steps, args.seconds),
            batch_size=None,
            num_workers=args.workers,
            prefetch_factor=4 if args.workers else None,
            pin_memory=device == "cuda",
        )
    )
    start, logged, waited, seconds, step, sums = time.time(), time.time(), 0.0, args.seconds, 0, {}
    warm_up = min(10 if stage.freeze_vision else 60, steps)
    while step < steps and time.time() - start < seconds:
        share = max(step / steps, (time.time() - start) / seconds)
        decay = 1 if stage.freeze_vision else 0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * min(1, (step + 1) / warm_up) * decay
        asked = time.time()
        batch = to_device(next(loader), device)
        waited += time.time() - asked
        logits, tokens = logits_of(model, drawings, batch)
        losses = F.cross_entropy(logits, batch["target"], reduction="none")
        loss = (losses * batch["weight"]).sum() / batch["weight"].sum()
        rows, concept = concept_targets(batch, concepts)
        named = classifier(F.layer_norm(tokens[rows].float().mean(1), tokens.shape[-1:]))
        total = loss + CONCEPT_WEIGHT * F.cross_entropy(named, concept)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        if step % 20 == 0 or step == 1:
            with torch.no_grad():
                figures = {"loss": loss, "concept": (named.argmax(1) == concept).float().mean()}
                for kind, weight in WEIGHTS.items():
                    of_kind = batch["weight"] == weight
                    figures[kind] = (logits[of_kind].argmax(1) == batch["target"][of_kind]).float().mean()
                for key, value in figures.items():
                    sums.setdefault(key, []).append(value)
        if stage.freeze_vision and step in args.snapshots:
            save(model, f"{name}{step}")
        if step == steps or time.time() - logged > args.every or (stage.freeze_vision and step % 5 == 0):
            logged = time.time()
            means = {key: round(torch.stack(values).nanmean().item(), 3) for key, values in sums.items()}
            entry = {
                "stage": name,
                "step": step,
                "seconds": round(time.time() - start, 1),
                **means,
                **watch(model, drawings),
                "waited": round(waited, 1),
            }
            print(json.dumps(entry), flush=True)
            log.write(json.dumps(entry) + "\n")
            log.flush()
            sums = {}
    save(model, name)


def save(model, name: str) -> None:
    """bfloat16 weights without the tied head."""
    weights = {
        key: value.detach().to("cpu", torch.bfloat16).contiguous()
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"
    }
    save_file(weights, BUILD / f"{name}.safetensors", metadata={"format": "pt"})


def finish(name: str = "follow") -> None:
    """`build/NAME.safetensors` -> `build/base/`, as `from_pretrained` reads it."""
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    model = new_model(tokenizer)
    missing, unexpected = model.load_state_dict(load_file(BUILD / f"{name}.safetensors"), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    model.set_attn_implementation("sdpa")
    model.to(torch.bfloat16).save_pretrained(BASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="see,choose,refine,locate,follow", help="which to run, or `finish` alone")
    parser.add_argument("--seconds", type=float, default=600, help="at most, for each stage")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--batch", type=int, help="instead of the stage's own")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--every", type=float, default=20, help="seconds between lines of the log")
    parser.add_argument("--watched", type=int, default=1024, help="questions about unseen pictures")
    parser.add_argument("--snapshots", type=lambda text: [int(step) for step in text.split(",")], default=[5, 10, 20])
    parser.add_argument(
        "--compile", action="store_true", help="fuse small operations: a minute at first, 15 %% faster then"
    )
    parser.add_argument("--finish", default="follow", help="the stage or snapshot that becomes the base")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stages = [name for name in args.stages.split(",") if name in STAGES]
    if stages:
        torch.manual_seed(0)
        tokenizer, pictures = Tokenizer.from_file(str(BASE / "tokenizer.json")), read_pictures()
        drawings = load_drawings(BUILD / "pictures.zip", device)
        model, watch = new_model(tokenizer).to(device), Watch(pictures, tokenizer, device, args.watched)
        if args.compile:
            compile_layers(model)
        if first := BEFORE.get(stages[0]):
            model.load_state_dict(load_file(BUILD / f"{first}.safetensors"), strict=False)
        with open(BUILD / "pretrain.jsonl", "a") as log:
            for name in stages:
                run(name, STAGES[name], model, drawings, pictures, watch, device, args, log)
    if args.stages.endswith(("follow", "finish")):
        finish(args.finish)


if __name__ == "__main__":
    main()
