"""Request body: what a client sends, counted and timed while it comes."""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive, Send

from incontext.web.api_errors import ApiError

LINGER = 5.0  # seconds for which the rest of a refused body is read


class RequestBody:
    """The body of one request.

    What it says of its length is not believed: bytes are counted. An error reaches clients only
    if they are not cut off while they send, so the rest is read, for a while, and thrown away.

    Args:
        max_bytes: accepted.
        deadline: of the whole body, in the loop's time.
    """

    def __init__(self, receive: Receive, max_bytes: int, deadline: float) -> None:
        self._receive, self._max_bytes, self._deadline = receive, max_bytes, deadline
        self._bytes = 0
        self._complete = False

    def check_length(self, length: str | None) -> None:
        """Raise ApiError if a request announces that it is too long."""
        if length and length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_long()

    async def receive(self) -> Message:
        """Return the next part; after the last one, what comes when the client goes away.

        Raises:
            ApiError: too many bytes, or too slow.
        """
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._next()
        except TimeoutError:
            raise ApiError(408, "the upload took too long", "seconds") from None
        if self._bytes > self._max_bytes:
            raise self._too_long()
        return message

    def drain_before_end(self, send: Send) -> Send:
        """Return a `send` that reads what is left of the body before it ends the response."""

        async def send_and_drain(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and not self._complete:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while not self._complete:
                            await self._next()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return send_and_drain

    async def _next(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    def _too_long(self) -> ApiError:
        text = f"more than {self._max_bytes / 1e6:g} MB in one request"
        return ApiError(413, text, "bytes")
