"""Small batches on a card without the host's part: their forward passes are recorded once, as CUDA graphs.

In: a `PreparedBatch` and the ids of the letters. Out: `AnswerLogits` of its sequences for each member, as from
`PackedModel.answer`, and with the same bits.

A forward pass of one question is thousands of kernels, and to launch each takes the host longer than to run it takes
the card. A graph launches all of them at once. It always reads and writes the same memory, so that it serves batches of
one shape: `buckets` fills trees up to few shapes, and pictures must have the same grids. A shape is recorded when it
comes for the second time; the first time it is computed as any other batch, which loads every kernel. Where there are
more shapes than graphs are kept, one must come often to take another's place.

Next: `scorer`, which answers all batches through this; `packed`, whose forward passes are recorded.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from scoring.engine.batches import PreparedBatch
from scoring.engine.buckets import filled_up, is_small
from scoring.engine.capabilities import has_flash
from scoring.engine.device_map import GIB, devices_of, free_bytes
from scoring.engine.forward import FEW_LEAVES, AnswerLogits, TreeBatch
from scoring.engine.packed import PackedModel
from scoring.engine.tree import Tree

MOST_GRAPHS = 16  # that are kept: those used last
MOST_SHAPES = 1_024  # that are remembered without a graph
SECOND = 2  # at how many batches of a shape it is recorded
REPAID = 32  # the same, once another graph must go for it: recording takes as long as several batches
ROOM = 4 * GIB  # what must be free on the card to record one

Shape = tuple[Any, ...]


class Place(NamedTuple):
    """What the graphs of a card share: the memory that their kernels use, and the stream on which they are recorded."""

    pool: Any
    stream: torch.cuda.Stream

    @classmethod
    def on(cls, device: torch.device) -> "Place":
        return cls(torch.cuda.graph_pool_handle(), torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


@dataclass
class Recorded:
    """One forward pass. batch: on the card, what it reads. answers: what it writes, of all leaves, for each member."""

    graph: torch.cuda.CUDAGraph
    batch: TreeBatch
    answers: list[AnswerLogits]

    @classmethod
    def of(cls, packed: PackedModel, batch: TreeBatch, label_ids: list[int], place: Place) -> "Recorded":
        """Record the answers to a batch on the card, whose kernels have all run before. Raises RuntimeError."""
        with torch.cuda.device(place.stream.device):
            graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            try:
                with torch.cuda.graph(graph, place.pool, place.stream, "thread_local"):  # other threads may allocate
                    answers = packed.answer(batch, label_ids)
            finally:
                torch.cuda.set_stream(before)  # where recording fails, PyTorch stays on the other
        return cls(graph, batch, answers)

    def answer(self, batch: TreeBatch, count: int) -> list[AnswerLogits]:
        """The answers of the first `count` leaves of a batch on the host, of the same shape."""
        self.batch.buffer.copy_(batch.buffer, non_blocking=True)
        for there, here in zip(self.batch.pixels, batch.pixels):
            there.copy_(here, non_blocking=True)
        self.graph.replay()
        return [
            AnswerLogits(*(tensor.clone() for tensor in (answer.labels, answer.log_total, answer.top)))
            for answer in first(self.answers, count)
        ]


class Graphs:
    """The graphs of one `PackedModel`. They share their memory: each is done before the next one begins.

    why_not: why none are recorded; "" while they are.
    """

    def __init__(self, packed: PackedModel):
        self.packed, self.device = packed, packed.model.device
        self.why_not = why_no_graphs(packed)
        self.recorded: OrderedDict[Shape, Recorded] = OrderedDict()
        self._seen: OrderedDict[Shape, int] = OrderedDict()  # how often, since it last had a graph
        self._place: Place | None = None

    def answer(self, batch: PreparedBatch, label_ids: list[int]) -> list[AnswerLogits]:
        """For each member in turn the answers of the batch's sequences, of which it has at least one.

        They are on the device, perhaps not computed yet.
        """
        try:
            return self._answer(batch, label_ids)
        except torch.OutOfMemoryError:
            self.clear()  # whoever tries again with fewer rows shall have the memory
            raise

    def clear(self) -> None:
        """Give the memory of all graphs back."""
        if self.recorded and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the last one may still be under way
        self.recorded.clear()
        self._place = None

    def _answer(self, batch: PreparedBatch, label_ids: list[int]) -> list[AnswerLogits]:
        tensors, leaves = batch.tensors, FEW_LEAVES[self.device.type]
        tree = tensors.tree if tensors else Tree.build(batch.sequences, batch.picture_numbers)
        if not self.why_not and not self.packed.compiled and is_small(tree, leaves):
            filled = TreeBatch.of(filled_up(tree, leaves), batch.pictures, batch.grids, self.device.type)
            longest = (len(filled.ids), max(len(filled.keys), len(filled.leaf_keys)))  # bounds, the same for a shape
            return self._answer_small(replace(filled, longest=longest), len(tree.leaves), label_ids)
        tensors = tensors or TreeBatch.of(tree, batch.pictures, batch.grids, self.device.type)
        return self.packed.answer(tensors.to(self.device), label_ids)

    def _answer_small(self, batch: TreeBatch, count: int, label_ids: list[int]) -> list[AnswerLogits]:
        """batch: filled up, on the host. count: of its leaves that are no fillers."""
        shape = shape_of(batch, label_ids)
        if shape not in self.recorded:
            there = batch.to(self.device)
            if not self._is_due(shape) or not self._record(shape, there, label_ids):
                return first(self.packed.answer(there, label_ids), count)
        self.recorded.move_to_end(shape)
        return self.recorded[shape].answer(batch, count)

    def _is_due(self, shape: Shape) -> bool:
        """Whether a shape, which comes now, came often enough, and the card has room for its graph."""
        self._seen[shape] = self._seen.pop(shape, 0) + 1
        if len(self._seen) > MOST_SHAPES:
            self._seen.popitem(last=False)
        needed = SECOND if len(self.recorded) < MOST_GRAPHS else REPAID
        return self._seen.get(shape, 0) >= needed and free_bytes(self.device) >= ROOM

    def _record(self, shape: Shape, batch: TreeBatch, label_ids: list[int]) -> bool:
        """Whether a graph could be recorded; where it could not, none is tried again."""
        restore = _random_numbers(self.device)
        try:
            self._place = self._place or Place.on(self.device)
            self.recorded[shape] = Recorded.of(self.packed, batch, label_ids, self._place)
        except RuntimeError as error:  # of memory or of what a graph cannot hold
            reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
            self.why_not = f"a forward pass could not be recorded ({reason})"
            self.packed.model.notes.append(f"small batches are answered without CUDA graphs: {self.why_not}")
            restore()
            self.clear()
            return False
        del self._seen[shape]
        if len(self.recorded) > MOST_GRAPHS:
            self.recorded.popitem(last=False)
        return True


def _random_numbers(device: torch.device) -> Callable[[], None]:
    """What gives a card's generator of random numbers back its state.

    A recording that fails leaves it waiting for the recording's end: it would draw no number for anyone any more.
    """
    if device.type != "cuda":
        return lambda: None
    generator = torch.cuda.default_generators[device.index or 0]
    state = generator.clone_state()

    def restore() -> None:
        generator.graphsafe_set_state(state)

    return restore


def why_no_graphs(packed: PackedModel) -> str:
    """Why forward passes of a packed model cannot be recorded; "" where they can."""
    parts = packed.parts
    if not has_flash(packed.values) or packed.stream != torch.bfloat16:
        return "only cards that compute in bfloat16 with flash attention have graphs"
    if len(devices_of(packed.network)) > 1:
        return "the base lies on several cards"
    if not parts.recordable or parts.family.is_mixture(packed.network.config.to_dict()):
        return f"the forward pass of this {parts.family.name} asks the card for values"
    if not all(member.merged for member in packed.members):
        return "an adapter goes through PEFT's own layers"
    return ""


def shape_of(batch: TreeBatch, label_ids: list[int]) -> Shape:
    """What batches have in common that one graph can answer."""
    counts = tuple(len(tensor) for tensor in (batch.ids, batch.keys, batch.query_bounds, batch.leaves, batch.leaf_keys))
    pixels = tuple(tuple(pixels.shape) for pixels in batch.pixels)
    return counts, batch.sizes, batch.occurrences, pixels, tuple(label_ids)


def first(answers: list[AnswerLogits], count: int) -> list[AnswerLogits]:
    """The answers of the first `count` sequences."""
    return [AnswerLogits(each.labels[:count], each.log_total[:count], each.top[:count]) for each in answers]
