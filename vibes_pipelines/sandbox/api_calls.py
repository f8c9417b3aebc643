"""What a request and an answer of the stand-in API are, and what a route is made of.

The routes themselves are in `api_routes` and in the modules that it gathers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.api_bodies import parse_body, read_patch
from vibes_pipelines.sandbox.callbacks_registry import Callbacks
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_mdn import ApiVersion, parse_mdn
from vibes_pipelines.sandbox.platform_records import Person, PersonPatch
from vibes_pipelines.sandbox.platform_refusals import UnsupportedMediaTypeError
from vibes_pipelines.sandbox.switches import Switches


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted request.

    `owner` is the company key or the app id, `path` has the decoded variable segments, `query` the
    first of each.
    """

    account: Account
    callbacks: Callbacks
    switches: Switches
    version: ApiVersion
    owner: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    content_type: str
    raw_body: bytes

    @property
    def platform(self) -> Platform:
        """The mobile database."""
        return self.account.platform

    def plain_body(self) -> dict[str, Any]:
        """The JSON object of a write that is kept and shown as it came."""
        return self.body(float)

    def body(self, parse_float: Callable[[str], object] = Decimal) -> dict[str, Any]:
        """The JSON object of a write, by default with exact numbers; raises the refusals."""
        media_type = self.content_type.partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaTypeError("the Content-Type must be application/json")
        return parse_body(self.raw_body, parse_float)

    def patch(self) -> PersonPatch:
        """The person body of a write; raises the refusals of reading it."""
        return read_patch(self.body(), self.platform.field_by_name, self.version)

    def mdn(self) -> str | None:
        """The number in the query, `None` when there is none; raises MalformedMdnError."""
        text = self.query.get("mdn")
        return None if text is None else parse_mdn(text, self.version)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a JSON payload, or nothing at all when it is `None`."""

    status: int
    payload: Any = None


Handler = Callable[[Call], Answer]

PersonFinder = Callable[[Call], Person]
"""The person that a call's path names; raises PersonNotFoundError."""


@dataclass(frozen=True)
class Route:
    """A path below the company with its handlers by method; `*` stands for a variable segment."""

    template: str
    handlers: Mapping[str, Handler]

    @property
    def is_about_persons(self) -> bool:
        """Whether this is a call of the Person API."""
        return self.template.startswith("/mobiledb/persons")
