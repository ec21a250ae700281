import pytest

from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate


@pytest.fixture(scope="session")
def preparer(base) -> Preparer:
    """That of the demo's base, with the default prompt."""
    return Preparer.of_base(base, PromptTemplate(), PixelPolicy.of_base(base))
