"""Pictures that a program holds in memory: bytes, file objects, Pillow's pictures and NumPy's arrays.

They stay in memory: bytes as they are, decoded where files are; arrays as Pillow's pictures.
"""

from typing import Any

import numpy as np
from PIL import Image

from scoring.errors import quoted
from scoring.inputs.pictures import PictureError, PictureLimits

KINDS = "a path, bytes, a binary file object, a PIL image or a NumPy array"
SHAPES = "shape (height, width), (height, width, 3) or (height, width, 4)"
BLOCK = 1 << 20  # bytes that are read at a time


def picture_of(value: object, limits: PictureLimits) -> bytes | Image.Image:
    """The picture that an object holds, its header not yet looked at. Raises PictureError, which names its type.

    A file object is read to its end, at most `limits.file_bytes`. An array is copied: the program may go on to use it.
    """
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if type(value).__module__.split(".")[0] == "torch" and hasattr(value, "numpy"):
        fix = "give an array: picture.permute(1, 2, 0).numpy(), with values 0 to 255 as uint8"
        raise PictureError(f"{type_name(value)} of shape {tuple(getattr(value, 'shape', ()))}", KINDS, fix)
    if hasattr(value, "read"):
        return _of_file(value, limits)
    raise PictureError(type_name(value), KINDS, "give the picture in one of these forms")


def may_hold_picture(value: object) -> bool:
    """Whether an object is of a kind that `picture_of` takes, as far as can be seen without reading it."""
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and value.ndim in (2, 3)
    return isinstance(value, Image.Image) or hasattr(value, "read")


def type_name(value: object) -> str:
    """What an object is, for a message: `None`, `a list`, `an int`, `a torch.Tensor`."""
    if value is None:
        return "None"
    kind = type(value)
    package = kind.__module__.split(".")[0]
    name = kind.__qualname__ if package in ("builtins", "__main__") else f"{package}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def _of_array(array: np.ndarray) -> Image.Image:
    """Raises PictureError for arrays of another type or shape."""
    found = f"an array of {array.dtype} with shape {array.shape}"
    if array.dtype != np.uint8:
        scale = "np.rint(255 * array)" if array.dtype.kind == "f" else "array"
        fix = f"if its values are {'0 to 1' if array.dtype.kind == 'f' else '0 to 255'}, give {scale}.astype(np.uint8)"
        raise PictureError(found, "uint8, values 0 to 255", fix)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4
        fix = "give array.transpose(1, 2, 0)" if channels_first else "reshape it"
        raise PictureError(found, SHAPES, "give its pictures one by one, in a list" if array.ndim == 4 else fix)
    if not array.size:
        raise PictureError(found, "at least one pixel", "give a picture that is not empty")
    return Image.fromarray(np.array(array))


def _of_file(file: Any, limits: PictureLimits) -> bytes:
    """The rest of a file object's bytes. Raises PictureError."""
    what, blocks, count = type_name(file), [], 0
    try:
        while block := file.read(BLOCK):
            if not isinstance(block, bytes | bytearray | memoryview):
                kind = "text" if isinstance(block, str) else type_name(block)
                _close(block)
                raise PictureError(f"{what} that reads {kind}", "a file object that reads bytes", "open it with 'rb'")
            blocks.append(bytes(block))
            count += len(block)
            if count > limits.file_bytes:
                fix = "scale it down, or raise --max-picture-bytes"
                raise PictureError(f"over {limits.file_bytes:,} bytes", f"at most {limits.file_bytes:,}", fix)
        place = 0 if blocks else _place(file)
    except PictureError:
        raise
    except Exception as error:  # a file that is closed, or a connection that broke; each class has its own errors
        found = f"{what} that cannot be read ({quoted(str(error), 200)})"
        raise PictureError(found, "a binary file object", "open it again") from None
    if place:
        raise PictureError(f"{what} that was read to its end before", "one at its beginning", "call seek(0) first")
    return b"".join(blocks)


def _place(file: Any) -> int:
    """Where a file object stands; 0 where it cannot tell."""
    try:
        return int(file.tell())
    except Exception:  # it need not have the method, nor be able to use it
        return 0


def _close(block: object) -> None:
    """Of an asynchronous file, whose `read` gives a coroutine: Python would warn that nobody waited for it."""
    if hasattr(block, "close"):
        block.close()
