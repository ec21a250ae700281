"""A folder is written into by one process at a time."""

import os

import pytest

from scoring.files.lock import LockError, check_folder_is_shared, lock_folder


def test_a_read_only_folder_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(LockError, match="cannot be written"), lock_folder(folder / "scores"):
        pass


def test_a_folder_that_processes_do_not_share_is_reported(tmp_path):
    with lock_folder(tmp_path / "held"):
        check_folder_is_shared(tmp_path / "held", 0)
    with pytest.raises(LockError, match="not the folder that the first process writes into"):
        check_folder_is_shared(tmp_path / "other", 0)
