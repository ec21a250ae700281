"""A base's tensors on their way to a card: several threads read them some way ahead of the library that asks for them.

In: a base's folder, whose safetensors files say where its tensors are. Out: one tensor after the other on the card, as
it is stored. The library reads a file's pages through a mapping and copies them one tensor after the other, at a
fraction of what memory and card can do; here they go through memory that the card itself can copy from.

Next: `loading`, which gives them to transformers.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch

from scoring.checkpoints.weights import CheckpointError, StoredTensor, read_header, weight_files
from scoring.engine.device_map import GIB
from scoring.inputs.families.registry import family_of

READERS = 8  # threads
PIECE = 16 * 2**20  # bytes that a thread reads at once
SHARE = 0.1  # of the card's free memory: what may lie there before it is asked for
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES |= {"I64": torch.int64, "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}


@dataclass(frozen=True)
class _Arriving:
    """A tensor on the device, and the pieces of its bytes that are being read into it."""

    tensor: torch.Tensor
    pieces: list[Future[None]]


class WeightReader:
    """Reads a base's tensors to a device in the order of their names, as transformers asks for them.

    `close` ends its threads. Raises CheckpointError where a file's header is damaged.
    """

    def __init__(self, folder: Path, device: torch.device):
        self.device = torch.empty(0, device=device).device  # with its number
        headers = [read_header(path) for path in weight_files(folder)]
        self._stored = {name: tensor for tensors in headers for name, tensor in tensors.items()}
        unread = family_of(folder).unread
        self._coming = [name for name in sorted(self._stored, key=_by_numbers) if not name.startswith(unread)][::-1]
        self._arriving: dict[str, _Arriving] = {}
        self._changes = threading.Lock()  # transformers may ask from several threads
        self._closed = threading.Event()
        self._thread = threading.local()  # its `buffer`
        self._pool = ThreadPoolExecutor(READERS, initializer=self._prepare_thread)
        with self._changes:
            self._read_ahead()

    @property
    def state(self) -> "dict[str, LateTensor]":
        """All tensors by their names: a state that transformers loads into a network."""
        return {name: LateTensor(self, stored) for name, stored in self._stored.items()}

    def close(self) -> None:
        """Read nothing more; what is not taken is dropped."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)
        self._arriving.clear()

    def take(self, name: str) -> torch.Tensor:
        """A tensor on the device. Raises CheckpointError where its file ends too early, OSError where it is gone."""
        with self._changes:
            arriving = self._arriving.pop(name, None) or self._start(name)
            self._read_ahead()
        for piece in arriving.pieces:
            piece.result()
        return arriving.tensor

    # ------------------------------------------------------------ reading ahead
    def _read_ahead(self) -> None:
        """Begin with the next tensors, as long as those that nobody has taken yet leave most of the device free."""
        waiting = sum(arriving.tensor.nbytes for arriving in self._arriving.values())
        while self._coming:
            name = self._coming[-1]
            size = self._stored[name].size
            if waiting and waiting + size > SHARE * self._free():
                return
            self._coming.pop()
            if name not in self._arriving:
                self._arriving[name] = self._start(name)
                waiting += size

    def _start(self, name: str) -> _Arriving:
        stored = self._stored[name]
        tensor = torch.empty(stored.shape, dtype=TYPES[stored.dtype], device=self.device)
        target = tensor.view(-1).view(torch.uint8)
        starts = range(0, stored.size, PIECE)
        return _Arriving(tensor, [self._pool.submit(self._read, stored, target, start) for start in starts])

    def _free(self) -> int:
        on_card = self.device.type == "cuda"
        return torch.cuda.mem_get_info(self.device)[0] if on_card else 10 * GIB

    # ------------------------------------------------------------ in the threads
    def _prepare_thread(self) -> None:
        """Memory for a piece that stays where it is, so that the card copies from it by itself."""
        on_card = self.device.type == "cuda"
        if on_card:
            torch.cuda.set_device(self.device)
        self._thread.buffer = torch.empty(PIECE, dtype=torch.uint8, pin_memory=on_card)

    def _read(self, stored: StoredTensor, target: torch.Tensor, start: int) -> None:
        """Copy a piece of a tensor's bytes, from the file to the device."""
        if self._closed.is_set():
            return
        piece = self._thread.buffer[: stored.size - start]
        with open(stored.path, "rb", buffering=0) as file:
            file.seek(stored.start + start)
            room = memoryview(piece.numpy())
            while room:
                if not (count := file.readinto(room)):
                    raise CheckpointError(f"{stored.path}: it ends within {stored.name}; copy it again")
                room = room[count:]
        # on the stream that everything else is on: no tensor's memory is written to before its last use
        target[start : start + len(piece)].copy_(piece, non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # the buffer is free for the next piece


@dataclass(frozen=True)
class LateTensor:
    """Stands for a tensor of a base, with the methods of safetensors' slices: it is there once it is asked for."""

    reader: WeightReader
    stored: StoredTensor

    def get_shape(self) -> list[int]:
        return list(self.stored.shape)

    def get_dtype(self) -> str:
        return self.stored.dtype

    def __getitem__(self, index: EllipsisType) -> torch.Tensor:
        return self.reader.take(self.stored.name)[index]


def _by_numbers(name: str) -> list[tuple[bool, int, str]]:
    """Sorts names as transformers does: numbers in them by their value, and before words."""
    return [(False, int(part), "") if part.isdigit() else (True, 0, part) for part in name.split(".")]
