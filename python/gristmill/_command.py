"""The command ``gristmill``: the same as the binary."""

from __future__ import annotations

import signal
import sys

from gristmill import _lib


def main() -> int:
    # Python would turn the first Ctrl-C into an exception after the command has ended; the command handles it itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _lib.command(["gristmill", *sys.argv[1:]])
