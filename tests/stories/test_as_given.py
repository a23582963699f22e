"""What a customer gave is sent, echoed and compared as it was given, or refused with the reason."""

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import quote, unquote

import aiohttp
import msgspec
import pytest
from yarl import URL

from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import payload
from tests.harness.polls import PULL
from tests.harness.sockets import CONNECT_PATH
from tests.harness.waiting import wait_until
from tests.outbound.receivers import receiving, status

# JSON that a parser's round trip would change.
NUMBERS = [
    *("1.0", "1.50", "1e2", "1E+2", "1e-7", "-0", "-0.0", "0.1000000000000000055511151231257827"),
    *("9007199254740993", "18446744073709551616", "-9223372036854775809", "1" * 300),
]
TEXTS_IN_JSON = [
    *(r'"\u0000"', r'"\u00e9"', '"é"', r'"\/"', r'"\ud83d\ude00"', '"\u2028"', '"e\u0301"', '"\ufeff"'),
]
WHOLE = [
    *(*NUMBERS, *TEXTS_IN_JSON, "null", "true"),
    *('{"b": 1, "a": 2}', '{"a": 1, "a": 2}', "[ 1 ,\t2 ]", '{"a":{"":null}}', '{ "a" :\n[ ] }'),
]
REFUSED = {
    "1e400": "data",
    "-1e999": "data",
    r'"\ud800"': "",
    r'{"\udc00": 1}': "",
    '"\x00"': "",
    "NaN": "",
    "01": "",
    "[" * 300 + "]" * 300: "data",
}
# Texts that trimming, folding, normalising or decoding once more would change.
TEXTS = [
    *(
        "\u00e9",
        "e\u0301",
        " a ",
        "\u00a0a\u00a0",
        "a\u2028b",
        "\u200d",
        "\uff21",
        "\u0130\u0131\u017f\u212a",
    ),
    *("a%2Fb", "%", "%zz", "%25", "a+b", "a b", "a/b", "/a", "a//b", "../a", "ß", "😀", "null", "1.0", "-0"),
    *('"a"', "a\\b", "a&b=c", "a;b,c", "a#b?c"),
]
CONTROLS = ["a\nb", "\x00", "a\tb", "\x7f"]


class Client:
    """The REST API with bodies and responses as bytes, and sockets of every dialect."""

    def __init__(self, http: aiohttp.ClientSession, api: Api) -> None:
        self._http = http
        self.api = api

    async def key(self, *topics: str) -> ApiKey:
        """An API key with a WebSocket channel that is bound to these topics."""
        key = await self.api.api_key()
        await self.api.register(key)
        assert (await self.put(key, "/v1/bindings", list(topics))).status == 204
        return key

    async def put(self, key: ApiKey, path: str, body: object) -> Response:
        return await self.api.call("PUT", path, key=key, json=body)

    async def publish(self, key: ApiKey, body: str) -> Response:
        # Not `errors="strict"`: a lone surrogate is sent as the bytes that it would have.
        return await self.api.call("POST", "/v1/events", key=key, data=body.encode("utf-8", "surrogatepass"))

    async def publish_data(self, key: ApiKey, values: list[str], *, topic: str = "odd.data") -> None:
        events = ",".join(f'{{"topic":"{topic}","data":{value}}}' for value in values)
        response = await self.publish(key, f"[{events}]")
        assert response.status == 202, response.text

    async def socket(self, key: ApiKey, path: str, **headers: str) -> aiohttp.ClientWebSocketResponse:
        headers = headers or {"Authorization": f"Bearer {key.secret}"}
        return await self._http.ws_connect(self.api.url + path, headers=headers)

    async def trigger(self, key: ApiKey, query: str = "") -> tuple[aiohttp.ClientWebSocketResponse, str]:
        """A Cognism socket, and its session."""
        credentials = {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}
        socket = await self.socket(key, f"/api/v1/websocket{query}", **credentials)
        return socket, str(json.loads(await text_of(socket))["session"])


async def text_of(socket: aiohttp.ClientWebSocketResponse) -> str:
    async with asyncio.timeout(20):
        return str(await socket.receive_str())


def items_in(message: str, section: str = "events") -> list[dict[str, str]]:
    """The items of a NotificationMessage; each member as the text that it has there."""
    sections = msgspec.json.decode(message, type=dict[str, list[dict[str, msgspec.Raw]]])
    return [
        {name: bytes(value).decode() for name, value in item.items()} for item in sections.get(section, [])
    ]


async def items_on(
    socket: aiohttp.ClientWebSocketResponse, count: int, section: str = "events"
) -> list[dict[str, str]]:
    items: list[dict[str, str]] = []
    while len(items) < count:
        items += items_in(await text_of(socket), section)
    return items


@pytest.fixture(scope="module")
def process() -> Iterator[AllInOne]:
    with all_in_one(ALLOW_PRIVATE_CALLBACKS=1) as process:
        process.start()
        process.wait_ready()
        yield process


@pytest.fixture
def client(process: AllInOne, http: aiohttp.ClientSession) -> Client:
    return Client(http, Api(http, process.url, process.admin_token))


async def test_data_over_a_socket(client: Client) -> None:
    key = await client.key("odd.data")
    socket = await client.socket(key, CONNECT_PATH)
    await client.publish_data(key, WHOLE)
    assert [item["data"] for item in await items_on(socket, len(WHOLE))] == WHOLE


async def test_data_over_a_long_poll(client: Client) -> None:
    key = await client.api.api_key()
    await client.put(key, "/v1/bindings", ["odd.data"])
    assert (await client.api.call("GET", f"{PULL}?noWait=true", key=key)).status == 204
    await client.publish_data(key, WHOLE)
    response = await client.api.call("GET", PULL, key=key)
    assert [item["data"] for item in items_in(response.text)] == WHOLE


async def test_data_over_a_webhook(client: Client) -> None:
    key = await client.api.api_key()
    await client.put(key, "/v1/bindings", ["odd.data"])
    async with receiving(status(200)) as receiver:
        await client.api.register_webhook(key, receiver.url())
        await client.publish_data(key, WHOLE)

        def delivered() -> list[str]:
            return [item["data"] for body in receiver.bodies for item in items_in(body.decode())]

        await wait_until(lambda: len(delivered()) >= len(WHOLE), what="all notifications")
        assert delivered() == WHOLE
        await client.api.delete_callback(key)


async def test_data_over_a_trigger(client: Client) -> None:
    key = await client.api.api_key()
    socket, session = await client.trigger(key)
    await client.publish_data(key, WHOLE)
    assert [await text_of(socket) for _ in WHOLE] == WHOLE
    for value in WHOLE:
        path = f"/api/v1/websocket/session?session={session}"
        response = await client.api.call("POST", path, data=value.encode())
        assert response.status == 200, response.text
        assert await text_of(socket) == value


async def test_an_item_that_gets_more_members_keeps_those_that_it_has(client: Client) -> None:
    key = await client.key()
    flags = {"include_uid": True, "include_timestamp": True, "include_original_ep": True}
    body = {"serialization": {"type": "v2", "cfg": {**flags, "deregistrations_as_object": True}}}
    assert (await client.put(key, "/v2/notification/websocket", body)).status == 200
    socket = await client.socket(key, CONNECT_PATH)

    events = ",".join(
        f'{{"topic":"device.notifications","to":"{key.id}",'
        f'"data":{{"ep":"\\u0065","path":"/1","b":{value},"a":1.0}}}}'
        for value in WHOLE
    )
    assert (await client.publish(key, f"[{events}]")).status == 202
    items = await items_on(socket, len(WHOLE), "notifications")

    assert [item["b"] for item in items] == WHOLE
    for item in items:
        assert list(item) == ["ep", "path", "b", "a", "uid", "timestamp", "original-ep"]
        assert (item["ep"], item["original-ep"], item["a"]) == (r'"\u0065"', r'"\u0065"', "1.0")


async def test_numbers_in_a_kazoo_event(client: Client) -> None:
    """Its names are rewritten, so every value is."""
    key = await client.api.api_key()
    socket = await client.socket(key, "/socket")
    await socket.send_str('{"action":"subscribe","data":{"binding":"object.doc_created.user"}}')
    assert json.loads(await text_of(socket))["status"] == "success"
    values = [f'{{"A-B":[{{"C":{value}}},null]}}' for value in NUMBERS]
    await client.publish_data(key, values, topic="object.doc_created.user.u1")
    got = [msgspec.json.decode(await text_of(socket), type=dict[str, msgspec.Raw])["data"] for _ in values]
    assert [bytes(data).decode() for data in got] == [f'{{"a_b":[{{"c":{each}}},null]}}' for each in NUMBERS]


async def test_what_a_kazoo_client_says_of_itself(client: Client) -> None:
    key = await client.api.api_key()
    for number in NUMBERS:
        socket = await client.socket(key, "/socket")
        await socket.send_str(f'{{"action":"ping","request_id":{number},"metadata":{{"A-b":[{number}]}}}}')
        assert json.loads(await text_of(socket))["request_id"] == number
        listed = (await client.api.call("GET", "/v2/account/websockets", key=key)).text
        assert f'"metadata":{{"A-b":[{number}]}}' in listed
        await socket.close()


@pytest.mark.parametrize("value", REFUSED)
async def test_data_that_is_refused(client: Client, value: str) -> None:
    key = await client.api.api_key()
    response = await client.publish(key, f'{{"topic":"odd.data","data":{value}}}')
    assert response.status == 400
    error = response.json
    assert error["type"] == "validation_error"
    assert [each["name"] for each in error["fields"]] == ([REFUSED[value]] if REFUSED[value] else [])
    assert "JSON" in error["message"] or "nested" in error["message"]


async def test_a_pattern_tells_large_numbers_apart(client: Client) -> None:
    numbers = [
        *("123456789012345678901", "123456789012345678902", "18446744073709551616", "-9223372036854775809"),
    ]
    for number in numbers:
        for pattern in (f"n={number}", f'{{"n":{number}}}'):
            key = await client.api.api_key()
            socket, _ = await client.trigger(key, f"?pattern={quote(pattern)}")
            await client.publish_data(key, [f'{{"n":{each}}}' for each in [*numbers, number]])
            assert [await text_of(socket) for _ in range(2)] == [f'{{"n":{number}}}'] * 2
            await socket.close()


async def test_texts_of_an_event(client: Client) -> None:
    key = await client.key("odd.text")
    socket = await client.socket(key, CONNECT_PATH)
    events = [{"topic": "odd.text", "data": each, "id": each, "name": each, "time": each} for each in TEXTS]
    response = await client.api.post_events(key, events)
    assert [each["id"] for each in response.json["events"]] == TEXTS
    for item, text in zip(await items_on(socket, len(TEXTS)), TEXTS, strict=True):
        assert {json.loads(item[name]) for name in ("id", "name", "time", "data")} == {text}


@pytest.mark.parametrize("field", ["id", "name", "time", "to", "topic"])
async def test_control_characters_are_refused(client: Client, field: str) -> None:
    key = await client.api.api_key()
    for text in CONTROLS:
        response = await client.api.post_events(key, {"topic": "a", "data": 1, field: text})
        assert response.status == 400
        assert [each["name"] for each in response.json["fields"]] == [field]


async def test_a_receipt_by_any_event_id(client: Client) -> None:
    key = await client.key("odd.receipt")
    for text in TEXTS:
        event = {"topic": "odd.receipt", "data": 1, "id": text, "receipt": True}
        assert (await client.api.post_events(key, event)).status == 202
    for text in TEXTS:
        response = await client.api.receipt(key, text)
        assert (response.status, response.json.get("id")) == (200, text)


@pytest.mark.parametrize("is_encoded_again", [False, True])
async def test_a_poll_acks_any_event_id(client: Client, *, is_encoded_again: bool) -> None:
    key = await client.api.api_key()
    await client.put(key, "/v1/bindings", ["odd.poll"])
    poll = f"{client.api.url}{PULL}?noWait=true&after="
    for text in TEXTS:
        await client.api.call("GET", URL(poll, encoded=True), key=key)
        await client.api.publish(key, {"topic": "odd.poll", "data": 1, "id": text})
        got = await client.api.call("GET", URL(poll, encoded=True), key=key)
        assert [json.loads(item["id"]) for item in items_in(got.text)] == [text]
        last = got.headers["X-Last-Uid"]
        after = quote(last, safe="") if is_encoded_again else last
        assert (await client.api.call("GET", URL(poll + after, encoded=True), key=key)).status == 204, text


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/events/%FF", "event_id"),
        ("/v1/events/a%C3", "event_id"),
        ("/v1/channels/%FF", "channel"),
        ("/v1/api-keys/%80", "api_key_id"),
        ("/v1/accounts/%C3%28", "account_id"),
        ("/v2/subscriptions/%FF", "device-id"),
        ("/v2/subscriptions/lamp/%FF", "resourcePath"),
        ("/v2/subscriptions/%00", "device-id"),
    ],
)
async def test_a_name_in_a_path_that_is_no_text(client: Client, path: str, field: str) -> None:
    key = await client.api.api_key(scopes=("publish", "receive", "admin"))
    response = await client.api.call("GET", URL(client.api.url + path, encoded=True), key=key)
    assert response.status == 400, response.text
    assert [each["name"] for each in response.json["fields"]] == [field]


async def test_devices_are_told_apart(client: Client) -> None:
    """Composed and decomposed, trimmed and not, encoded and not: each is a device of its own."""
    key = await client.key()
    socket = await client.socket(key, CONNECT_PATH)
    path = "/\u00e9/%2F/ +"
    for text in TEXTS:
        url = f"/v2/subscriptions/{quote(text, safe='')}"
        encoded = URL(f"{client.api.url}{url}{quote(path)}", encoded=True)
        assert (await client.api.call("PUT", encoded, key=key)).status == 200
        listed = await client.api.call("GET", URL(client.api.url + url, encoded=True), key=key)
        assert [unquote(line) for line in listed.text.split("\n")] == [path]
        names = [*(each for each in TEXTS if each != text), text]
        events = [
            {"topic": "device.notifications", "data": {"ep": each, "path": path, "payload": payload(each)}}
            for each in names
        ]
        assert (await client.api.publish(key, *events)) == [0] * (len(names) - 1) + [1]
        [item] = await items_on(socket, 1, "notifications")
        assert [json.loads(item[name]) for name in ("ep", "path", "payload")] == [text, path, payload(text)]
        assert (await client.api.call("DELETE", encoded, key=key)).status == 204


async def test_bindings_are_echoed(client: Client) -> None:
    key = await client.key()
    wanted = [{"endpoint-name": text, "endpoint-type": text, "resource-path": [text]} for text in TEXTS]
    await client.api.subscribe(key, *wanted)
    assert await client.api.subscriptions(key) == wanted
    topics = [text for text in TEXTS if not any(sign.isspace() or sign == "#" for sign in text)]
    assert (await client.put(key, "/v1/bindings", topics)).status == 204
    assert (await client.api.call("GET", "/v1/bindings", key=key)).json == topics


async def test_names_of_accounts_and_api_keys(client: Client) -> None:
    for text in [*TEXTS, *CONTROLS]:
        made = await client.api.admin("POST", "/v1/accounts", json={"name": text})
        if not text.isprintable():
            assert (made.status, made.json["fields"][0]["name"]) == (400, "name")
            continue
        path = f"/v1/accounts/{made.json['id']}"
        key = await client.api.admin("POST", f"{path}/api-keys", json={"name": text, "scopes": ["publish"]})
        shown = [made, await client.api.admin("GET", path), key]
        shown.append(await client.api.admin("GET", f"/v1/api-keys/{key.json['id']}"))
        assert [each.json["name"] for each in shown] == [text] * 4


HEADER_VALUES = ["", " a ", "\ta", "a  b", '"a"', "a,b;c=d", "%20", 'a=b; c="d"', "\\", "~!@#$^&*()"]


async def test_url_and_headers_of_a_webhook(client: Client) -> None:
    key = await client.api.api_key()
    names = ["Authorization", "Cookie", "X-ODD", "x-lower", "Accept", "Content-Type", "User-Agent"]
    async with receiving(status(200)) as receiver:
        for index, value in enumerate(HEADER_VALUES):
            url = f"HTTP://127.0.0.1:{receiver.port}/a//./..;/%2f%2F%7E~+?b=%20+&&c=[{index}]&d=|"
            headers = dict.fromkeys(names, value)
            await client.api.register_webhook(key, url, headers=headers)
            shown = (await client.api.callback(key)).json
            assert (shown["url"], shown["headers"]) == (url, headers)
            head = receiver.heads[-1]
            assert head.split(" ")[1] == url.partition(str(receiver.port))[2]
            lines = head.split("\r\n")
            for name in names:
                assert f"{name}: {value}" in lines, (name, value, head)
        for value in ("é", "a\r\nb: c", "\x00", "\x7f", "\ud83d\ude00"):
            response = await client.api.put_callback(key, receiver.url(), headers={"X": value})
            assert (response.status, response.json["fields"][0]["name"]) == (400, "headers")
    await client.api.delete_callback(key)
