"""Settings: read from the environment once, each with its unit in the name.

Only this module reads the environment, and only services use settings: the rooms take plain values.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from shared.redis.client import connect
from shared.redis.urls import is_cluster
from shared.runtime.setting_names import PREFIX, contradictions, given_name, unknown, variable
from shared.runtime.setting_types import (
    Bytes,
    Count,
    Limit,
    LongSeconds,
    Network,
    Port,
    Rate,
    Seconds,
    check_authorities,
    check_certificate,
    check_proxy,
    lower,
    networks,
    origins,
    year,
)

ADMIN_TOKEN_LENGTH = 16


class SettingsError(Exception):
    """A setting has a wrong value. The message is one line that names the variable and shows no secret."""


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "replica"


class Settings(BaseModel):
    """Every setting with its default and meaning. No error shows one with `repr=False`: it holds a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    redis_url: str | None = Field(
        None,
        repr=False,
        description="Redis or Valkey: redis://, rediss:// or unix:///path, redis+cluster://HOST,HOST "
        "or redis+sentinel://HOST,HOST/SERVICE; unset: an embedded Valkey, which only `all` can use",
    )
    data_dir: Path = Field(
        Path(".data"),
        description="folder of the embedded Valkey and of the secrets that `all` creates at its first start",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: Port = Field(8000, description="port of the gateway; the only port of `all`")
    edge_port: Port = Field(8001, description="port of the socket edge, unless it runs in `all`")
    dispatcher_port: Port = Field(8002, description="port of the webhook dispatcher's health and metrics")
    reaper_port: Port = Field(8003, description="port of the expiry reaper's health and metrics")
    metrics_port: Port | None = Field(
        None, description="separate port for metrics; unset: each service serves them on its own port"
    )
    jobs_redis_url: str | None = Field(
        None,
        repr=False,
        description="separate Redis for the job queue, not a cluster; unset: the same as REDIS_URL",
    )
    admin_token: SecretStr | None = Field(
        None,
        repr=False,
        description=f"secret for managing accounts and API keys, at least {ADMIN_TOKEN_LENGTH} characters; "
        "unset: `all` creates one at its first start",
    )
    replica: str = Field(
        default_factory=_host_name,
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="name of this process, unique within its service; unset: the host name",
    )
    ping_interval_s: Seconds = Field(20, description="interval of pings to an idle socket")
    ping_timeout_s: Seconds = Field(20, description="time for a pong; without one the connection is dropped")
    heartbeat_s: Seconds = Field(5, description="interval of a replica's heartbeats")
    heartbeat_ttl_s: Seconds = Field(
        15, description="time after the last heartbeat when a replica counts as dead; more than HEARTBEAT_S"
    )
    redis_outage_limit_s: Seconds = Field(
        120, description="length of a Redis outage after which sockets are closed"
    )
    drain_delay_s: Annotated[float, Field(ge=0, le=600)] = Field(
        0, description="time for which a stopping edge is unready before it closes anything"
    )
    drain_window_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        0, description="time over which it then closes its sockets evenly; 0: all at once"
    )
    batch_limit: Count = Field(
        384, description="most notifications in one read of a queue; a read returns at most 384"
    )
    frame_limit_bytes: Bytes = Field(
        48 * 1024, description="largest WebSocket frame; a single larger notification is sent alone"
    )
    in_flight_limit: Count = Field(1000, description="most unacknowledged notifications of a socket")
    in_flight_bytes: Bytes = Field(1024 * 1024, description="most unacknowledged bytes of a socket")
    websocket_expiry_s: LongSeconds = Field(
        86_400, description="time without a socket after which a WebSocket channel and its queue are deleted"
    )
    pull_expiry_s: LongSeconds = Field(
        600, description="time without a poll after which a long-poll channel and its queue are deleted"
    )
    long_poll_wait_s: Seconds = Field(
        30, description="time after which a long poll without notifications returns 204"
    )
    most_fetches: Count = Field(1000, description="most fetches of pull channels that wait at one gateway")
    webhook_expiry_s: LongSeconds = Field(
        86_400,
        description="time without a success after which a failing webhook and its queue are deleted",
    )
    channel_idle_expiry_s: LongSeconds | None = Field(
        None, description="time without notifications after which a webhook is deleted; unset: never"
    )
    reconcile_every_s: LongSeconds = Field(
        86_400, description="interval of the slow walk that repairs what crashes left"
    )
    reconcile_commands_per_s: Count = Field(200, description="most Redis commands a second of that walk")
    webhook_batch_bytes: Bytes = Field(
        256 * 1024,
        description="largest body of a request to a webhook; a single larger notification is sent alone",
    )
    webhook_requests: Count = Field(
        500,
        description="places for concurrent requests to webhooks of one dispatcher; as many again may go on "
        "without one while receivers hang",
    )
    webhook_requests_per_account: Count | None = Field(
        None, description="most of these places for one account; unset: a quarter of them"
    )
    sweep_s: Seconds = Field(
        5, description="interval of the fallback scan for pending webhooks; of more than 200 it takes longer"
    )
    blackhole_idle_s: Seconds = Field(
        3600, description="time without a message from the client after which a Blackhole socket is closed"
    )
    max_sockets_per_address: Count | None = Field(
        None,
        description="most Blackhole, Cognism and native sockets of one address on one edge; unset: no limit",
    )
    max_unauthenticated_sockets: Count = Field(
        5000,
        description="most Blackhole and native sockets of one edge that have not authenticated; beyond it "
        "the oldest is closed",
    )
    max_unauthenticated_sockets_per_address: Count = Field(
        1000,
        description="most of them from one address; beyond it the oldest of that address is closed",
    )
    unauthenticated_frames: Count = Field(
        100, description="most messages on a socket before a valid credential"
    )
    unauthenticated_bytes: Bytes = Field(
        256 * 1024, description="most bytes of messages on a socket before a valid credential"
    )
    max_arriving_connections: Count = Field(
        10_000, description="most connections without a complete request head; beyond it the oldest is closed"
    )
    max_arriving_connections_per_address: Count = Field(
        5000, description="most of them from one address; beyond it the oldest of that address is closed"
    )
    handshake_rate_per_address: Rate = Field(
        50, description="most WebSocket handshakes without a credential a second from one address"
    )
    handshake_burst_per_address: Count = Field(500, description="most of them at once")
    failed_authentication_rate_per_address: Rate = Field(
        10, description="most failed authentications a second from one address"
    )
    failed_authentication_burst_per_address: Count = Field(100, description="most of them at once")
    failed_authentication_rate: Rate = Field(
        1000,
        description="failed authentications a second from all addresses, beyond which each address has one "
        "in 10 s",
    )
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(networks)] = Field(
        (),
        description="networks of proxies whose X-Forwarded-For is trusted, as in 10.0.0.0/8; unset: none",
    )
    notification_lifetime_s: LongSeconds = Field(
        86_400,
        description="age at which notifications are dropped from a queue; of a native webhook after "
        "7 days, or after seven times this if that is shorter",
    )
    queue_limit_bytes: Annotated[int, Field(ge=1024 * 1024, le=1024**4)] = Field(
        50 * 1024 * 1024,
        description="largest size of a queue; beyond it the oldest notifications are dropped",
    )
    quota_events_per_s: Limit = Field(200_000, description="events that an account may publish a second")
    quota_bytes_per_s: Limit = Field(
        64 * 1024 * 1024, description="bytes of events that an account may publish a second"
    )
    quota_copies_per_s: Limit = Field(
        200_000, description="notifications that an account's events may make a second"
    )
    quota_burst_s: Annotated[float, Field(ge=0.5, le=60)] = Field(
        2, description="how much of a rate an account may save up, in seconds of the rate"
    )
    quota_sockets: Limit = Field(100_000, description="most open sockets, polls and streams of an account")
    quota_channels: Limit = Field(
        100_000, description="most API keys of an account, each with one channel at most"
    )
    quota_bindings: Limit = Field(1_000_000, description="most bindings of an account")
    quota_stored_bytes: Annotated[int, Field(ge=1024 * 1024, le=1024**5)] = Field(
        4 * 1024**3, description="most bytes of Redis that an account may fill"
    )
    stream_events_limit: Count = Field(100_000, description="most events that a stream keeps of a topic")
    stream_age_limit_s: LongSeconds = Field(2_592_000, description="longest time that a stream keeps events")
    stream_topics_limit: Count = Field(10_000, description="most topics of an account with a stream, about")
    stream_buffer_events: Count = Field(
        1000, description="most events that wait for a slow reader of streams"
    )
    stream_buffer_bytes: Bytes = Field(1024 * 1024, description="most bytes that wait for it, about")
    sse_heartbeat_s: Seconds = Field(15, description="interval of comments to a reader of streams")
    sse_retry_s: Seconds = Field(
        2, description="time after which a reader of streams reconnects; each is told up to twice of it"
    )
    key_quota_events_per_s: Limit | None = Field(
        None, description="events that an API key may publish a second; unset: as its account"
    )
    key_quota_bytes_per_s: Limit | None = Field(
        None, description="bytes of events that an API key may publish a second; unset: as its account"
    )
    idempotency_keys_limit: Count = Field(
        1_000_000, description="most Idempotency-Keys of an API key within a day; then a new one gets a 429"
    )
    device_types_limit: Count = Field(
        100_000, description="most devices of an account whose types are kept, those that registered last"
    )
    allow_private_callbacks: Annotated[tuple[Network, ...], BeforeValidator(networks)] = Field(
        (),
        description="private addresses that callbacks may use: 1 for all, or a list of networks as in "
        "10.0.0.0/8,fd00::/8; cloud metadata stays blocked",
    )
    callback_timeout_s: Seconds = Field(
        20, description="time for a callback's response, including the connection; DNS lookups have 10 s"
    )
    callback_client_cert: Path | None = Field(
        None, description="PEM file: client certificate for https callbacks that ask for one"
    )
    callback_client_key: Path | None = Field(
        None, description="PEM file: key of the client certificate, without a password"
    )
    callback_ca: Path | None = Field(
        None, description="PEM file: authorities trusted for https callbacks, besides the system's"
    )
    egress_proxy: str | None = Field(
        None,
        repr=False,
        description="forward proxy for all callbacks, as in http://user:password@proxy:3128; it is asked by "
        "CONNECT, for addresses; unset: none",
    )
    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(origins)] = Field(
        ("*",),
        description="origins of web pages that may use the API and open native sockets: * for all, none, or "
        "a list as in https://app.example,https://admin.example",
    )
    pelion_close_codes: Annotated[Literal[2019, 2020], BeforeValidator(year)] = Field(
        2019, description="year of the Pelion service's close codes: 2019 or 2020"
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(lower)] = Field(
        "text", description="text, or json for one object a line"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        "info", description="least severe level to log: debug, info, warning or error"
    )
    otlp_url: str | None = Field(
        None,
        repr=False,
        pattern=r"^https?://[^/\s]",
        description="collector of traces, by OTLP over HTTP, as in http://collector:4318; unset: no traces",
    )

    @field_validator("redis_url", "jobs_redis_url")
    @classmethod
    def _is_redis_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            connect(value)
        if info.field_name == "jobs_redis_url" and is_cluster(value):
            raise ValueError("should not be a cluster: arq's keys and pipelines span slots")
        return value

    @field_validator("admin_token")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        if len(value.get_secret_value()) < ADMIN_TOKEN_LENGTH:
            raise ValueError(f"should have at least {ADMIN_TOKEN_LENGTH} characters")
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("should have only visible ASCII characters and no space")
        return value

    @field_validator("heartbeat_ttl_s")
    @classmethod
    def _outlives_a_heartbeat(cls, value: float, info: ValidationInfo) -> float:
        heartbeat_s = info.data.get("heartbeat_s")
        if heartbeat_s is not None and value <= heartbeat_s:
            raise ValueError(f"should be more than {PREFIX}HEARTBEAT_S ({heartbeat_s:g})")
        return value

    @field_validator("callback_client_key")
    @classmethod
    def _fits_the_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "callback_client_cert" not in info.data:
            return value
        cert = info.data["callback_client_cert"]
        if (value is None) != (cert is None):
            raise ValueError(f"should be set together with {PREFIX}CALLBACK_CLIENT_CERT")
        if cert is not None:
            assert value is not None
            check_certificate(cert, value)
        return value

    @field_validator("callback_ca")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            check_authorities(value)
        return value

    @field_validator("egress_proxy")
    @classmethod
    def _is_a_proxy(cls, value: str | None) -> str | None:
        if value is not None:
            check_proxy(value)
        return value


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in `environ` (None: the environment of this process). An empty value counts as unset.

    Raises SettingsError, in one line that names every wrong variable.
    """
    environ = os.environ if environ is None else environ
    if wrong := contradictions(environ):
        raise SettingsError("; ".join(wrong))
    names = {field: name for field in Settings.model_fields if (name := given_name(field, environ))}
    try:
        return Settings.model_validate({field: environ[name] for field, name in names.items()})
    except ValidationError as error:
        raise SettingsError("; ".join(_messages(error, names))) from None


def log_format_in(environ: Mapping[str, str] | None = None) -> Literal["text", "json"]:
    """The log format that is asked for, whatever the other settings say."""
    environ = os.environ if environ is None else environ
    return "json" if environ.get(variable("log_format"), "").lower() == "json" else "text"


def unknown_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """Variables in `environ` with our prefix that are no settings, each with the nearest known name."""
    return unknown(os.environ if environ is None else environ, Settings.model_fields)


def _messages(error: ValidationError, names: Mapping[str, str]) -> list[str]:
    messages = []
    for detail in error.errors(include_url=False):
        field = str(detail["loc"][0])
        text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
        is_shown = Settings.model_fields[field].repr and detail["input"] is not None
        got = f", got {str(detail['input'])[:80]!r}" if is_shown else ""
        messages.append(f"{names.get(field, variable(field))}: {text}{got}")
    return messages
