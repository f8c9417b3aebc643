"""Every resource of one company over one connection pool, and so under the platform's one rate."""

from typing import Self

from vibes_pipelines.vibes.api_calls import Calls
from vibes_pipelines.vibes.api_transport import ApiTransport, Limits
from vibes_pipelines.vibes.api_version import ApiVersion
from vibes_pipelines.vibes.callback_api import CallbackApi
from vibes_pipelines.vibes.campaign_api import CampaignApi
from vibes_pipelines.vibes.event_api import EventApi
from vibes_pipelines.vibes.person_api import Persons
from vibes_pipelines.vibes.privacy_api import PrivacyApi
from vibes_pipelines.vibes.push_api import PushApi
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines.vibes.subscription_api import SubscriptionApi
from vibes_pipelines.vibes.wallet_api import WalletApi


class VibesApi:
    """The Vibes API of one company; use it as an async context manager.

    Two of these in one process would each drive the platform at the full rate: share one, or give
    both the limiter of their `calls`.
    """

    def __init__(
        self,
        base_url: str,
        company_key: str,
        user: str,
        password: str,
        limits: Limits | None = None,
        version: ApiVersion = 2,
        calls: RateLimiter | None = None,
    ) -> None:
        self._http = ApiTransport(base_url, user, password, limits or Limits(), version, calls)
        company = Calls(self._http, company_key)
        self.persons = Persons(company)
        self.subscriptions = SubscriptionApi(company)
        self.campaigns = CampaignApi(company)
        self.events = EventApi(company)
        self.callbacks = CallbackApi(company)
        self.push = PushApi(company)
        self.wallet = WalletApi(company)
        self.privacy = PrivacyApi(company)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._http.__aexit__(*raised)
