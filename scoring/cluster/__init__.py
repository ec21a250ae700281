"""Scores on a Ray cluster: an actor on each card answers batches; the process that was called plans and files them.

`connection` finds or starts a cluster, `head` looks whether it is still there, `actor` holds a model, `pool` gives
batches to actors and goes on when one is lost, and `workers` puts them in the place of the engine of a run.
"""
