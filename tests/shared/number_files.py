"""Files of numbers as others write them."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_csv(path, ids, values, pattern="p_{}"):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(pattern.format(letter) for letter in "abcd"[: values.shape[1]])])
        writer.writerows([id, *(f"{value:.12g}" for value in row)] for id, row in zip(ids, values))
    return path


def write_table(path, text):
    path.write_text(text)
    return path


def write_long_file(path, log_p, y, ids):
    columns = {"id": ids * len(log_p), "member": np.repeat([*"uvwxyz"][: len(log_p)], len(ids))}
    columns |= {"answer": ["abcd"[index] for index in y] * len(log_p)}
    columns |= {f"p_{letter}": np.exp(log_p[:, :, index]).ravel() for index, letter in enumerate("abcd")}
    pq.write_table(pa.table(columns), path)
    return path
