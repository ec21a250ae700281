"""What a scorer is loaded from: the options of `score`, checked before anything is read."""

import pickle

import pytest

from scoring.errors import CallError, ScoringError
from scoring.inputs.orders import OrdersError
from scoring.inputs.prompt import PromptTemplate
from scoring.library.settings import ScorerSettings, orders_from, pixels_from
from scoring.stats.calibration import Calibration
from tests.shared.demo import BOTH

GIVEN = {
    "ckpt": BOTH,
    "base": None,
    "template": None,
    "pixels": None,
    "quantization": None,
    "allow_mismatch": False,
    "orders": "1",
    "calibration": "auto",
    "device": None,
    "weights": "auto",
    "margin": 0.7,
    "batch_tokens": None,
    "verify": True,
}


def settings_of(**values):
    return ScorerSettings.of(**GIVEN | values)


def test_orders_and_pixels_are_read_as_on_the_command_line():
    assert orders_from(" Cyclic") == ("cyclic",) and orders_from(3) == orders_from("03") == ("3",)
    assert orders_from("1,cyclic") == orders_from(["1", "cyclic", 1]) == ("1", "cyclic")
    assert pixels_from(None) == () and pixels_from([448, "560", 448]) == (448**2, 560**2)
    assert pixels_from("448,200704") == (448**2,)


@pytest.mark.parametrize("orders", ["bogus", "0", -1, [], "", 25])
def test_other_orders_are_refused(orders):
    with pytest.raises(OrdersError):
        orders_from(orders)


@pytest.mark.parametrize(
    "name, value, told",
    [
        ("weights", "8bit", "expected auto, 4bit or 16bit"),
        ("margin", -0.5, "such as 0.7"),
        ("margin", "x", "such as 0.7"),
        ("margin", float("nan"), "such as 0.7"),
        ("batch_tokens", 10, "from 64 on"),
        ("batch_tokens", "many", "from 64 on"),
        ("quantization", "int8", "nf4"),
        ("ckpt", [], "no checkpoint"),
        ("pixels", 20, "at least 32"),
        ("calibration", [], "no calibration"),
        ("calibration", 3, "no calibration: 3; expected auto"),
        ("calibration", None, "no calibration: None"),
        ("calibration", {"temperature": 2}, "no calibration"),
        ("calibration", ["auto"], "no calibration"),
        ("template", {"system": ""}, "template: found a dict; expected a PromptTemplate"),
        ("pixels", 0.5, "pixels: found a float; expected the side"),
        ("orders", None, "orders: found None; expected one choice"),
        ("orders", {"1": 2}, "orders: found a dict"),
        ("ckpt", None, "ckpt: found None; expected a checkpoint's folder"),
        ("ckpt", b"fold0", "ckpt: found a bytes"),
        ("ckpt", {"fold0", "fold1"}, "ckpt: found a set"),
        ("ckpt", [["fold0"]], "ckpt: found a list in a list"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name, value, told):
    with pytest.raises(ScoringError, match=told):
        settings_of(**{name: value})


def test_settings_survive_pickling_with_their_template():
    settings = settings_of(template=PromptTemplate(user="{question}\n{options}"), orders=["1", "cyclic"])
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings and again.model.template.user == "{question}\n{options}"


def test_given_calibrations_are_used_as_they_are():
    one = settings_of(calibration=Calibration(temperature=2.0)).groups(("1",))
    assert [each.temperature for group in one for each in group.plan.calibrations] == [2.0, 2.0]
    each = settings_of(calibration=[Calibration(temperature=2.0), Calibration(temperature=3.0)]).groups(("1",))
    assert [calibration.temperature for calibration in each[0].plan.calibrations] == [2.0, 3.0]
    with pytest.raises(CallError, match="3 calibrations for 2 members"):
        settings_of(calibration=[Calibration()] * 3).groups(("1",))
