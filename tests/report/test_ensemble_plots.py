"""Plots of an ensemble."""

import numpy as np
import pytest

from scoring.report.ensemble_plots import disagreement, draw_ensemble
from scoring.report.records import Metrics, read_record
from scoring.scores.pooling import pool_files
from tests.shared.scores_folders import write_other_member, write_scores


def test_disagreement_is_its_definition():
    p = np.array([[[0.7, 0.3], [1.0, 0.0], [0.5, 0.5]], [[0.2, 0.8], [0.0, 1.0], [0.5, 0.5]]])
    with np.errstate(divide="ignore"):
        result = disagreement(np.log(p))
    mean = p.mean(0)
    entropy = -(mean[0] * np.log(mean[0])).sum() + (p[:, 0] * np.log(p[:, 0])).sum() / 2
    assert result == pytest.approx([entropy, np.log(2), 0.0])
    assert np.isnan(disagreement(np.full((2, 1, 3), np.nan))).all()


def test_the_figure_is_drawn_without_the_picture_files(tmp_path):
    pooled = pool_files([write_scores(tmp_path / "a"), write_other_member(tmp_path / "b")], tmp_path / "out")
    metrics = read_record(Metrics, pooled.metrics)
    assert draw_ensemble(pooled.scores, metrics).read_bytes()[:4] == b"\x89PNG"
