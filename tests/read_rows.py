"""Reads what a pipeline wrote, with pyarrow and none of Gristmill's code.

Prints a line for every row: output, partition, offset, sub, order_id; and for every dead letter: `dead_letter`,
partition, offset, sub, code and key.
Usage: read_rows.py ROWS_FOLDER [DEAD_LETTER_FOLDER]
"""

import json
import os
import sys

import pyarrow.parquet as parquet

COLUMNS = ["_kafka_partition", "_kafka_offset", "_kafka_sub", "order_id"]


def visible(folder):
    """Files as Hive and Spark see them: what begins with `_` or `.` is not data."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f[0] not in "_.")
        for name in sorted(files):
            if name[0] not in "_.":
                yield os.path.join(root, name)


def rows(path):
    if path.endswith(".parquet"):
        # ParquetFile takes the file alone: `dt=` in the path is not to become a column. All columns are read, so
        # that a broken page shows; few become Python objects, since there are many rows.
        yield from parquet.ParquetFile(path).read().select(COLUMNS).to_pylist()
    elif path.endswith(".jsonl"):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)
    else:
        sys.exit(f"{path}: neither Parquet nor JSON lines")


def output(path):
    """topic[+output]+incarnation+partition+first+seq.ext"""
    parts = os.path.basename(path).split("+")
    return parts[1] if len(parts) == 6 else "main"


def main():
    for path in visible(sys.argv[1]):
        for row in rows(path):
            place = (row["_kafka_partition"], row["_kafka_offset"], row["_kafka_sub"])
            print(output(path), *place, row["order_id"], sep="\t")
    if len(sys.argv) > 2:
        for path in visible(sys.argv[2]):
            with open(path, encoding="utf-8") as file:
                for letter in map(json.loads, file):
                    place = (letter["partition"], letter["offset"], letter["sub"])
                    key = letter["payload"]["key"]["utf8"]
                    print("dead_letter", *place, f"{letter['code']} {key}", sep="\t")


main()
