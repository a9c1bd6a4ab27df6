"""Body: what a request sends, counted and timed while it comes."""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive, Send

from incontext.web.api_errors import Refusal

LINGER = 5.0  # seconds for which the rest of a refused body is read


class Body:
    """The body of one request.

    What it says of its length is not believed: bytes are counted. A refusal reaches clients only
    if they are not cut off while they send, so the rest is read, for a while, and thrown away.

    Args:
        most: bytes.
        deadline: of the whole body, in the loop's time.
    """

    def __init__(self, receive: Receive, most: int, deadline: float) -> None:
        self._receive, self._most, self._deadline = receive, most, deadline
        self._bytes = 0
        self._ended = False

    def check(self, length: str | None) -> None:
        """Raise Refusal where a request says itself that it is too long."""
        if length and length.isdecimal() and int(length) > self._most:
            self._refuse()

    async def receive(self) -> Message:
        """The next part; after the last one, what comes when the client goes away.

        Raises:
            Refusal: too many bytes, or too slow.
        """
        if self._ended:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._next()
        except TimeoutError:
            raise Refusal(408, "the upload took too long", "seconds") from None
        if self._bytes > self._most:
            self._refuse()
        return message

    def answering(self, send: Send) -> Send:
        """`send`, which reads what is left of the body before the answer ends."""

        async def sending(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and not self._ended:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while not self._ended:
                            await self._next()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return sending

    async def _next(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message

    def _refuse(self) -> None:
        raise Refusal(413, f"more than {self._most / 1e6:g} MB in one request", "bytes")
