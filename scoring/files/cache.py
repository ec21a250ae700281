"""The folder for what can be made again, shared by all commands of a user."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for what can be made again, such as digests, compiled code and pictures from inside tables."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logit-scoring"
