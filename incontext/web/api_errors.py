"""Refusals: what a request is told when it is not answered, always {"error": one sentence}."""

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


class Refusal(HTTPException):
    """A request that is not answered.

    Args:
        status: of HTTP.
        text: what was wrong, and what is accepted.
        reason: one word, counted in the metrics; "": it is not a limit that was met.
        headers: more of them; a 503 says when to try again without being told.
    """

    def __init__(
        self, status: int, text: str, reason: str = "", headers: dict[str, str] | None = None
    ) -> None:
        retry = {"Retry-After": "5"} if status == 503 else {}
        super().__init__(status, text, {**retry, **(headers or {})})
        self.reason = reason


def answer_of(error: HTTPException) -> JSONResponse:
    """The answer that tells it."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
