"""Reads a folder of Hive-partitioned Parquet files as a newcomer would: no settings, none of Gristmill's code.

Prints the columns with their types, then each row as JSON, in the order of `n`.
Usage: read_partitioned.py pyarrow|duckdb FOLDER
"""

import datetime
import decimal
import json
import sys

import duckdb
import pyarrow.parquet as parquet


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat() if value.tzinfo else f"{value} without a zone"
    if isinstance(value, (decimal.Decimal, datetime.date)):
        return f"{type(value).__name__} {value}"
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def main():
    engine, folder = sys.argv[1:]
    if engine == "duckdb":
        found = duckdb.sql(f"from '{folder}/**/*.parquet'")
        print(*(f"{name} {kind}" for name, kind in zip(found.columns, found.types)), sep="; ")
        table = found.to_arrow_table()
    else:
        table = parquet.read_table(folder)
        print(*(f"{field.name} {field.type}" for field in table.schema), sep="; ")
    for row in sorted(table.to_pylist(), key=lambda row: row["n"]):
        print(json.dumps(plain(row), sort_keys=True))


main()
