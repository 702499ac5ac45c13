"""The Schema Registry."""

from __future__ import annotations

from gristmill import _lib


class Registry:
    """A Schema Registry with Confluent's REST interface. Nothing is sent until a schema is needed.

    ``url`` may be several, with commas between. ``timeout`` is of one request, in seconds; what may pass is retried.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        ca_pem: bytes | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self._lib = _lib.Registry(url, username, password, token, ca_pem, timeout)

    def __repr__(self) -> str:
        return f"Registry({self.url!r})"
