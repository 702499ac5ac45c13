"""Serves local-bigquery, an emulator of BigQuery that is independent of Gristmill, until its standard input is closed.

    bigquery_emulator.py REST_PORT GRPC_PORT FOLDER

Prints one line once both ports answer.
"""

import os
import sys
import threading

import duckdb
import duckdb_extensions
import grpc

# Its own wheels of DuckDB's extensions: nothing is downloaded while it runs.
for extension in ("icu", "ducklake", "json", "spatial"):
    duckdb_extensions.import_extension(extension)

# A request to BigQuery may have 10 MB; gRPC's own limit is 4.
make_server = grpc.server
grpc.server = lambda *args, **kwargs: make_server(
    *args, options=[("grpc.max_receive_message_length", 20_000_000)], **kwargs
)


def stop_with_the_test():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=stop_with_the_test, daemon=True).start()

from local_bigquery.cli import main  # noqa: E402, after the limit is raised

rest, rpc, folder = sys.argv[1:]
main(
    ["serve", "--host", "127.0.0.1", "--port", rest, "--grpc-port", rpc, "--project", "shop", "--dataset", "lake"]
    + ["--data-dir", folder]
)
