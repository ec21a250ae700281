"""The benchmark on two rows of the demo."""

from dataclasses import replace

import pytest

from scoring.checkpoints.plan import plan_members
from scoring.tables.reading import read_table


@pytest.fixture(scope="module")
def bench(scorer, demo, tmp_path_factory):
    from scoring.benchmark.measure import ORDERS, Bench
    from scoring.run.options import RunOptions

    table = read_table(demo / "test.csv")
    plans = {
        name: plan_members([str(demo / "checkpoints" / "fold0")], orders=orders) for name, orders in ORDERS.items()
    }
    table = replace(table, questions=table.questions[:2])
    return Bench(scorer, table, plans, RunOptions(), tmp_path_factory.mktemp("work"))
