"""The Vibes API of a project, opened with the account and the limits of its environment."""

from typing import TYPE_CHECKING

from vibes_pipelines.settings import ApiSettings
from vibes_pipelines.stages.project import Project
from vibes_pipelines.vibes.rate_limit import RateLimiter

if TYPE_CHECKING:
    from vibes_pipelines.vibes.person_api import PersonApi
    from vibes_pipelines.vibes.vibes_api import VibesApi


def vibes_api(project: Project, calls: RateLimiter | None = None) -> "VibesApi":
    """Every resource of the project's company; use it as an async context manager.

    `calls` limits the company's calls (`stages.api_rate`); without it they may take all that is
    never kept for opt-outs.
    """
    account = project.settings.api
    return vibes_api_of(account, project.config.company_key, calls=calls)


def vibes_api_of(
    account: ApiSettings,
    company_key: str,
    *,
    timeout_s: float = 30,
    max_attempts: int = 5,
    calls: RateLimiter | None = None,
) -> "VibesApi":
    """The same of an account alone, where no project is open."""
    # The HTTP client is slow to import; a process that asks nobody does without it.
    from vibes_pipelines.vibes.api_transport import Limits  # noqa: PLC0415
    from vibes_pipelines.vibes.vibes_api import VibesApi  # noqa: PLC0415 - as above

    limits = Limits(
        rate_per_s=account.bulk_rate_per_s, timeout_s=timeout_s, max_attempts=max_attempts
    )
    password = account.password.get_secret_value()
    return VibesApi(account.url, company_key, account.user, password, limits, calls=calls)


def person_api(project: Project, calls: RateLimiter) -> "PersonApi":
    """Persons and subscriptions of the project's company, over a connection of their own."""
    from vibes_pipelines.vibes.person_api import PersonApi  # noqa: PLC0415 - as above

    account = project.settings.api
    return PersonApi(
        account.url,
        project.config.company_key,
        account.user,
        account.password.get_secret_value(),
        calls=calls,
    )
