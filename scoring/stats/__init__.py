"""The statistics: calibration, metrics, intervals, tests, sets and pools. Arrays in, numbers out."""
