"""The Rust half's tasks as awaitables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gristmill._lib import Task


def settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Called on the loop's thread when a task has ended."""
    if future.done():  # cancelled meanwhile
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


async def call(start: Callable[..., Task], *arguments: Any) -> Any:
    """Starts a task of the Rust half and awaits it; when the await is cancelled, so is the task."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = start(loop.call_soon_threadsafe, future, *arguments)
    try:
        return await future
    finally:
        task.cancel()
