"""The Rust half: private. `mypy.stubtest` holds this file to the binary."""

from collections.abc import Callable, Mapping
from typing import Any, final

from gristmill.errors import GristmillError
from gristmill.producer import Payload

__all__ = [
    "__version__",
    "Batch",
    "close_interpreter",
    "Cluster",
    "command",
    "Consumer",
    "Format",
    "Frame",
    "Producer",
    "Record",
    "Registry",
    "Report",
    "Scan",
    "Task",
    "TestRegistry",
    "Undecodable",
]

__version__: str

_Settings = tuple[str, dict[str, str]]
_CallSoon = Callable[..., object]
_Shape = tuple[type[Any], Mapping[str, Any]]

def command(arguments: list[str]) -> int: ...
def close_interpreter() -> None: ...
@final
class Task:
    def cancel(self) -> None: ...

@final
class Registry:
    def __new__(
        cls,
        url: str,
        username: str | None,
        password: str | None,
        token: str | None,
        ca_pem: bytes | None,
        timeout: float,
    ) -> Registry: ...

@final
class Format:
    @staticmethod
    def bytes() -> Format: ...
    @staticmethod
    def json(fields: str) -> Format: ...
    @staticmethod
    def avro(registry: Registry, subject: str | None, schema: str | None) -> Format: ...

@final
class Undecodable:
    """A record that does not decode, and why."""

    @property
    def row(self) -> int:
        """Its place in its batch."""
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def code(self) -> str:
        """The class of the fault, such as ``DECODE_MALFORMED``: for metrics, and the code of a dead letter."""
    @property
    def reason(self) -> str:
        """One sentence, without a piece of the record."""

@final
class Frame:
    def __len__(self) -> int: ...
    @property
    def column_names(self) -> list[str]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def undecodable(self) -> list[Undecodable]: ...
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...
    def rows(self, kafka_columns: bool, shape: _Shape | None = None) -> list[Any]: ...

@final
class Scan:
    def __new__(
        cls, topic: str, settings: _Settings, format: Format, start: str | None, end: str | None
    ) -> Scan: ...
    def next(self, keep_undecodable: bool) -> Frame | None: ...
    def rest(self, keep_undecodable: bool, progress: Callable[[tuple[int, int]], None] | None) -> Frame: ...
    @property
    def progress(self) -> tuple[int, int]: ...
    @property
    def schema(self) -> Frame: ...

@final
class Record:
    """A record as it came, undecoded."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def row(self) -> int:
        """Its place in its batch."""
    @property
    def offset(self) -> int: ...
    @property
    def timestamp_ms(self) -> int | None:
        """Milliseconds since the Unix epoch."""
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """Names and values in order; a name may come more than once. Bytes of a name that are not UTF-8 are kept by
        ``surrogateescape``."""

@final
class Batch:
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def first_offset(self) -> int: ...
    @property
    def last_offset(self) -> int: ...
    @property
    def times_delivered(self) -> int: ...
    @property
    def rows_left(self) -> int: ...
    def __len__(self) -> int: ...
    def record(self, row: int) -> Record | None: ...
    def values(self) -> list[bytes | None]: ...
    def keys(self) -> list[bytes | None]: ...
    def decoded(self, keep_undecodable: bool) -> Frame: ...
    def decode_async(self, call_soon: _CallSoon, future: object) -> Task: ...
    def ack(self, rows: list[int] | None = None) -> bool: ...
    def reject(self, rows: list[int], code: str, reason: str) -> bool: ...
    def reject_async(
        self, call_soon: _CallSoon, future: object, rows: list[int], code: str, reason: str
    ) -> Task: ...

@final
class Consumer:
    def __new__(
        cls,
        topics: list[str],
        settings: _Settings,
        group_id: str,
        format: Format,
        *,
        start: str,
        isolation: str,
        group_protocol: str,
        dead_letter_topic: str | None,
        memory_budget: int | None,
        batch_records: int | None,
        session_timeout: float | None,
        client_id: str | None,
    ) -> Consumer: ...
    def try_next(self) -> Batch | None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def wait_async(self, call_soon: _CallSoon, future: object) -> Task: ...
    def close(self, timeout: float) -> None: ...
    def close_async(self, call_soon: _CallSoon, future: object, timeout: float) -> Task: ...

_Given = tuple[str, Payload, Payload, list[tuple[str, Payload]], int | None, int | None]

@final
class Report:
    def __len__(self) -> int: ...
    @property
    def delivered(self) -> int: ...
    @property
    def errors(self) -> dict[int, GristmillError]: ...
    def place(self, index: int) -> tuple[int, int] | None: ...

@final
class Producer:
    def __new__(
        cls,
        settings: _Settings,
        *,
        linger: float | None,
        compression: str,
        delivery_timeout: float | None,
        max_buffered_bytes: int | None,
        client_id: str | None,
    ) -> Producer: ...
    def send(self, records: list[_Given]) -> Report: ...
    def send_async(self, call_soon: _CallSoon, future: object, records: list[_Given]) -> Task: ...
    @property
    def buffered(self) -> int: ...
    def flush(self, timeout: float) -> None: ...
    def flush_async(self, call_soon: _CallSoon, future: object, timeout: float) -> Task: ...
    def close(self, timeout: float) -> None: ...
    def close_async(self, call_soon: _CallSoon, future: object, timeout: float) -> Task: ...

@final
class Cluster:
    def __new__(cls, brokers: int) -> Cluster: ...
    @property
    def bootstrap_servers(self) -> str: ...
    def create_topic(self, topic: str, partitions: int) -> None: ...

@final
class TestRegistry:
    def __new__(cls) -> TestRegistry: ...
    @property
    def url(self) -> str: ...
