"""Refusals of OTLP requests."""


class OtlpError(Exception):
    """A request that is refused with an HTTP status; the message is fit for the client."""

    def __init__(self, status: int, message: str, *, retry_after_seconds: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class OtlpUnauthenticated(Exception):
    """The presented token is not valid (any more); the text is fit for the client."""
