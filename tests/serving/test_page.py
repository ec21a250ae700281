"""The session in docs/serving.md, run against a server."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "serving.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8000"
CURLS = re.findall(r"^```sh\n(curl .*?)^```\n```json\n(.*?)^```", TEXT, re.M | re.S)
PYTHON = re.findall(r"^```py\n(.*?)^```\n```text\n(.*?)^```", TEXT, re.M | re.S)


def approximately(value: object) -> object:
    """The same JSON, whose numbers need not be equal to the last digit that is shown."""
    if isinstance(value, float):
        return pytest.approx(value, abs=2e-3)
    if isinstance(value, dict):
        return {key: approximately(each) for key, each in value.items()}
    return [approximately(each) for each in value] if isinstance(value, list) else value


def test_the_page_has_a_session():
    assert len(CURLS) == 2 and len(PYTHON) == 1 and "python cli.py serve --ckpt demo/checkpoints/fold0" in TEXT


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
@pytest.mark.parametrize("command, shown", CURLS)
def test_curl_gets_the_answer_that_is_shown(served, command, shown):
    line = command.replace(ADDRESS, served)
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == approximately(json.loads(shown))


@pytest.mark.parametrize("program, shown", PYTHON)
def test_the_program_prints_what_is_shown(served, program, shown):
    code = program.replace(ADDRESS, served)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    numbers = [re.findall(r"[\d.]+", text) for text in (shown, done.stdout)]
    assert [float(each) for each in numbers[1]] == pytest.approx([float(each) for each in numbers[0]], abs=2e-3)
    assert done.stdout.split()[0] == shown.split()[0]
