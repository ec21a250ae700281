"""What a command prints about the results that it wrote."""

import pytest

from scoring.stats.calibration import Calibration
from scoring.terminal.errors import SOME_UNSCORED
from scoring.terminal.results import Results, print_calibrations, print_results


def test_warnings_go_to_stderr_and_the_files_come_last(capsys, tmp_path):
    print_results(Results(tmp_path, True, None, ["odd"], lines=["2 of 2 rows scored"]))
    out, err = capsys.readouterr()
    assert err == "warning: odd\n"
    assert out.splitlines() == [
        "2 of 2 rows scored",
        f"submission:    {tmp_path / 'submission.csv'}",
        f"probabilities: {tmp_path / 'probabilities.csv'}",
    ]


def test_a_row_without_a_score_exits_with_3(capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_error:
        print_results(Results(tmp_path, False, None))
    assert exit_error.value.code == SOME_UNSCORED == 3 and "submission.csv" in capsys.readouterr().out


def test_what_a_calibration_gains_or_loses_is_printed_for_each_member(capsys):
    gained = Calibration(2.0, nll_before=0.9, nll_after=0.7, rows=1200, gain=0.15, gain_error=0.02, choice=["one T"])
    lost = Calibration(1.0, nll_before=0.5, nll_after=0.5, rows=30, gain=-0.01, gain_error=0.02, choice=["none"])
    print_calibrations({"m": gained})
    line = "NLL 0.9000 → 0.7000 on these 1,200 rows; on rows held out of the fit gained 0.1500 ± 0.0200"
    assert capsys.readouterr().out.splitlines() == ["one T", line]
    print_calibrations({"m": gained, "n": lost})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "m:" and lines[3:5] == ["n:", "none"] and "lost 0.0100 ± 0.0200" in lines[5]
