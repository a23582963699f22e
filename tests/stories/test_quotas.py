"""Quotas of an account and of its API keys, through two gateways and two edges."""

import asyncio
import time
from collections import Counter
from typing import Any

from tests.harness.api import Api, ApiKey, Response

FLOOD_S = 10.0
CLIENTS = 8
EVENT = {"topic": "orders.paid", "data": 1}


async def set_quotas(api: Api, account: str, **body: Any) -> Response:
    return await api.admin("PATCH", f"/v1/accounts/{account}", json=body)


async def usage(api: Api, account: str) -> Any:
    response = await api.admin("GET", f"/v1/accounts/{account}/usage")
    assert response.status == 200, response.text
    return response.json


class Flood:
    """Publishes single events as fast as it can through several gateways."""

    def __init__(self, *gateways: Api) -> None:
        self.gateways = gateways
        self.statuses = Counter[int]()
        self.refusals: list[Response] = []

    async def run(self, key: ApiKey, *, for_s: float) -> None:
        until_s = time.monotonic() + for_s

        async def publish(api: Api) -> None:
            while time.monotonic() < until_s:
                response = await api.post_events(key, EVENT)
                self.statuses[response.status] += 1
                if response.status == 429 and len(self.refusals) < 100:
                    self.refusals.append(response)

        await asyncio.gather(*(publish(api) for api in self.gateways for _ in range(CLIENTS)))


def assert_names(refusal: Response, quota: str) -> None:
    assert refusal.status == 429, refusal.text
    assert refusal.json["type"] == "quota_exceeded"
    assert refusal.json["fields"] == [{"name": quota, "message": "is used up"}]
