"""A run over a table: batches, resuming, memory, shards and processes."""
