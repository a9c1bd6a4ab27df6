"""API errors: requests that are refused, always told as {"error": one sentence}."""

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


class ApiError(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status.
        text: what was wrong, and what is accepted.
        reason: label of the limit that was met, counted in the metrics; "": no limit was.
        headers: more of them; a 503 carries Retry-After in any case.
    """

    def __init__(
        self, status: int, text: str, reason: str = "", headers: dict[str, str] | None = None
    ) -> None:
        retry = {"Retry-After": "5"} if status == 503 else {}
        super().__init__(status, text, {**retry, **(headers or {})})
        self.reason = reason


def error_response(error: HTTPException) -> JSONResponse:
    """Return the response that reports an error."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
