"""The server of a page, which signs tokens for its user."""

import time

from aiohttp import web

from tests.harness.tokens import Issuer

USER = "user-17"


class BackEnd:
    """Answers `POST /token` as docs/native.md says."""

    def __init__(self, issuer: Issuer, *, ttl_s: int = 300) -> None:
        self.issuer = issuer
        self.ttl_s = ttl_s
        self.is_up = self.is_signed_in = True
        self.given: list[str] = []
        """The tokens, in order."""

    @property
    def routes(self) -> list[web.RouteDef]:
        return [web.post("/token", self._answer)]

    async def _answer(self, _: web.Request) -> web.Response:
        if not self.is_up:
            raise web.HTTPServiceUnavailable
        if not self.is_signed_in:
            raise web.HTTPUnauthorized
        self.given.append(self.token())
        return web.json_response({"token": self.given[-1], "ttl_s": self.ttl_s})

    def token(self) -> str:
        """For the user, with a fraction in its times, so that no sign-out of this second ends a later one."""
        now_s = time.time()
        times = {"iat": now_s, "exp": now_s + self.ttl_s}
        return self.issuer.token(sub=USER, read=["orders.#"], channels=["kitchen"], **times)
