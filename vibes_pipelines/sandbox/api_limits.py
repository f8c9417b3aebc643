"""Who may call the API, and how often: Basic authentication and the request limit."""

import base64
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic


@dataclass(frozen=True)
class Credentials:
    """The one pair of the sandbox's API user."""

    user: str
    password: str = field(repr=False)

    def header(self) -> str:
        """The value of the Authorization header that goes with this pair."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def admit(self, authorization: str | None) -> bool:
        """Whether a request's Authorization header holds this pair; the scheme's case is free."""
        scheme, _, token = (authorization or "").partition(" ")
        expected = self.header().partition(" ")[2]
        is_pair = hmac.compare_digest(token.strip().encode(), expected.encode())
        return scheme.lower() == "basic" and is_pair


class RateLimit:
    """At most so many requests in any second, seen through a sliding window.

    Refused requests do not count (an assumption: the documentation gives only the rate). A rate of
    `None` lifts the limit.
    """

    def __init__(
        self, rate_per_s: int | None = 100, now_s: Callable[[], float] = monotonic
    ) -> None:
        self.rate_per_s = rate_per_s
        self._now_s = now_s
        self._admitted: deque[float] = deque()

    def admit(self) -> bool:
        """Whether one more request fits into the second that ends now; then it is counted."""
        if self.rate_per_s is None:
            return True
        now_s = self._now_s()
        while self._admitted and self._admitted[0] <= now_s - 1:
            self._admitted.popleft()
        if len(self._admitted) >= self.rate_per_s:
            return False
        self._admitted.append(now_s)
        return True
