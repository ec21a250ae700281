"""Pictures that a program holds: what is taken as it is, what is refused, and by which name."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from scoring.inputs.picture_objects import may_hold_picture, picture_of, type_name
from scoring.inputs.pictures import DEFAULT_LIMITS, PictureError, PictureLimits

RNG = np.random.default_rng(0)


def refused(value, limits=DEFAULT_LIMITS) -> str:
    with pytest.raises(PictureError) as refused:
        picture_of(value, limits)
    return str(refused.value)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_stay_bytes_in_whatever_they_come(kind):
    assert picture_of(kind(b"abc"), DEFAULT_LIMITS) == b"abc"


def test_a_file_object_is_read_to_its_end(tmp_path):
    (tmp_path / "f").write_bytes(data := bytes(range(256)) * 10_000)
    with open(tmp_path / "f", "rb") as file, open(tmp_path / "f", "rb", buffering=0) as raw:
        assert picture_of(file, DEFAULT_LIMITS) == picture_of(raw, DEFAULT_LIMITS) == data
        assert "read to its end before; expected one at its beginning; call seek(0) first" in refused(file)
        file.seek(0)
        assert picture_of(file, PictureLimits(file_bytes=len(data))) == data
        file.seek(0)
        assert "over 2,559,999 bytes" in refused(file, PictureLimits(file_bytes=len(data) - 1))
    assert "BufferedReader that cannot be read ('read of closed file')" in refused(file)
    with open(tmp_path / "f", encoding="latin-1") as text:
        assert "TextIOWrapper that reads text; expected a file object that reads bytes; open it with 'rb'" in refused(
            text
        )
    assert "StringIO that reads text" in refused(io.StringIO("x"))
    assert picture_of(io.BytesIO(), DEFAULT_LIMITS) == b""  # an empty file, which is no picture


def test_a_connection_that_breaks_and_an_asynchronous_file_are_refused_by_name():
    class Broken:
        def read(self, size):
            raise ConnectionResetError("peer is gone")

    class Upload:
        async def read(self, size):
            return b"x"

    assert "Broken that cannot be read ('peer is gone')" in refused(Broken())
    assert "Upload that reads a coroutine" in refused(Upload())


@pytest.mark.parametrize("shape, mode", [((4, 5), "L"), ((4, 5, 1), "L"), ((4, 5, 3), "RGB"), ((4, 5, 4), "RGBA")])
def test_an_array_is_a_picture_of_its_values(shape, mode):
    array = RNG.integers(0, 256, shape, np.uint8)
    for given in (array, np.asfortranarray(array), array[::-1, ::-1][::-1, ::-1]):
        picture = picture_of(given, DEFAULT_LIMITS)
        assert picture.mode == mode and picture.size == (5, 4)
        assert np.array_equal(np.asarray(picture), array.reshape(np.asarray(picture).shape))
    before = picture.tobytes()
    given[:] = 0  # as a program does that reads the next frame of a video into it
    assert picture.tobytes() == before


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 5, 3)), "an array of float64 with shape (4, 5, 3); expected uint8, values 0 to 255; if its "
         "values are 0 to 1, give np.rint(255 * array).astype(np.uint8)"),
        (np.zeros((4, 5, 3), np.int64), "if its values are 0 to 255, give array.astype(np.uint8)"),
        (np.zeros((4, 5), bool), "an array of bool"),
        (np.zeros((3, 4, 5), np.uint8), "(3, 4, 5); expected shape (height, width), (height, width, 3) or "
         "(height, width, 4); give array.transpose(1, 2, 0)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "give its pictures one by one, in a list"),
        (np.zeros((4, 5, 2), np.uint8), "reshape it"),
        (np.zeros(9, np.uint8), "with shape (9,)"),
        (np.zeros((0, 5), np.uint8), "at least one pixel"),
        (np.array("x"), "an array of <U1"),
    ],
)  # fmt: skip
def test_other_arrays_are_refused_with_what_to_do(array, message):
    assert message in refused(array)


def test_a_tensor_is_refused_by_name():
    class Tensor:
        shape = (3, 4, 5)

        def numpy(self):
            raise AssertionError("a tensor may be on a card, or need a gradient")

    Tensor.__module__ = "torch"
    found = refused(Tensor())
    assert found.startswith("a torch.") and "of shape (3, 4, 5)" in found and ".numpy()" in found


@pytest.mark.parametrize("value, name", [(None, "None"), (5, "an int"), ([b"x"], "a list"), (object(), "an object")])
def test_what_is_no_picture_is_refused_by_the_name_of_its_type(value, name):
    assert refused(value).startswith(f"{name}; expected a path, bytes")


def test_what_may_be_a_picture_is_seen_without_reading_it():
    file = io.BytesIO(b"x")
    pictures = [file, Image.new("L", (1, 1)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)]
    others = [5, "p.png", object(), np.zeros((2, 2)), np.zeros(9, np.uint8)]
    assert all(map(may_hold_picture, pictures)) and not any(map(may_hold_picture, others)) and file.tell() == 0


def test_names_of_types():
    names = [type_name(value) for value in (None, "", {}, np.zeros(1), io.BytesIO(), Image.new("L", (1, 1)))]
    assert names == ["None", "a str", "a dict", "a numpy.ndarray", "a _io.BytesIO", "a PIL.Image"]
    assert not any(re.search(r"0x[0-9a-f]+", name) for name in names)
