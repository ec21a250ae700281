"""What a call begins while Python imports the libraries: it is there when it is needed, and never in the way."""

import ctypes
import subprocess
import sys
import threading
import time

import pytest

from scoring.checkpoints import weights
from scoring.run import ahead
from scoring.run.ahead import bases_here, begun, wake_card


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """No digests from other tests."""
    monkeypatch.setattr(weights, "_digests", {})


def test_a_base_is_read_while_something_else_is_done(base, monkeypatch):
    expected = weights.base_fingerprint(base)
    weights._digests.clear()
    with begun([base]):
        pass
    monkeypatch.setattr(weights, "_digest", None)  # nothing is read again
    assert weights.base_fingerprint(base) == expected


def test_an_error_does_not_wait_until_a_base_is_read_and_no_thread_stays(base, monkeypatch):
    blocks = []

    class Endless:
        def update(self, block):
            blocks.append(block)
            time.sleep(0.01)

    monkeypatch.setattr(weights, "BLOCK", 1)
    monkeypatch.setattr(weights.hashlib, "sha256", lambda *data: Endless())
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), begun([base]):
        while not blocks:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert threading.active_count() == threads and len(blocks) < 100 and not weights._digests


def test_what_is_wrong_with_a_checkpoint_or_its_base_is_left_to_the_plan(base, demo, tmp_path):
    (tmp_path / "no checkpoint").mkdir()
    names = [str(demo / "checkpoints"), "nobody/nothing", str(tmp_path / "nowhere"), str(tmp_path / "no checkpoint")]
    assert {folder.resolve() for folder in bases_here(names, None)} == {base.resolve()}
    assert bases_here(names[:1], str(tmp_path)) == [tmp_path]
    with begun([tmp_path / "nowhere", tmp_path]):  # without weights
        pass


def test_the_card_gets_the_context_that_pytorch_goes_on_with(monkeypatch):
    calls = []

    class Driver:
        def __getattr__(self, name):
            return lambda *arguments: calls.append(name) or 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    wake_card()
    assert calls == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]
    monkeypatch.setattr(Driver, "__getattr__", lambda self, name: lambda *arguments: calls.append(name) or 100)
    wake_card()  # a driver without a card
    assert calls[3:] == ["cuInit"]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    wake_card()


def test_nothing_of_it_imports_torch():
    words = [sys.executable, "-c", f"import sys, {ahead.__name__}; assert 'torch' not in sys.modules"]
    subprocess.run(words, check=True)
