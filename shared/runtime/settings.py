"""Settings: what an operator may choose, each with its unit in the name; read from the environment, once.

This is the only file that looks at the environment. Settings stop at a service's `run()`: rooms take plain
values.
"""

import difflib
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.redis.client import checked_url
from shared.redis.urls import is_cluster

PREFIX = "NOTIFY_"
ADMIN_TOKEN_LENGTH = 16
# What these hold, or may hold in a user:password@ part, is never printed.
_CONFIDENTIAL = frozenset({"admin_token", "redis_url", "jobs_redis_url", "otlp_url"})
# systemd's own name, set for every service it starts with Type=notify.
_NOT_OURS = frozenset({"NOTIFY_SOCKET"})

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
LongSeconds = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1024, le=1024**3)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# As browsers write them: no path, no default port, no slash at the end.
_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_EVERY_NETWORK = ("0.0.0.0/0", "::/0")


class SettingsError(Exception):
    """A setting has a wrong value. Its text is one line that names the variable, and shows no secret."""


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "replica"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _year(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _networks(value: object) -> object:
    """`1` is every network, `0` none; else a list."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("0", "false"):
        return ()
    names = _EVERY_NETWORK if value.lower() in ("1", "true") else value.split(",")
    try:
        return tuple(ipaddress.ip_network(name.strip()) for name in names)
    except ValueError:
        raise ValueError("should be 1, or networks as in 10.0.0.0/8,fd00::/8") from None


def _origins(value: object) -> object:
    """`*` is every origin, `none` no origin; else a list."""
    if not isinstance(value, str):
        return value
    names = () if value.strip().lower() == "none" else tuple(name.strip() for name in value.split(","))
    if names != ("*",) and not all(_ORIGIN.fullmatch(name) for name in names):
        raise ValueError("should be *, none, or origins as in https://app.example,http://localhost:3000")
    return tuple(name.lower() for name in names)


class Settings(BaseSettings):
    """Every setting with its default and meaning. Made by `load_settings`; by itself it reads nothing."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    redis_url: str | None = Field(
        None,
        repr=False,
        description="Redis or Valkey, as redis://, rediss:// or unix:///path, redis+cluster://HOST,HOST "
        "or redis+sentinel://HOST,HOST/SERVICE; unset: an embedded Valkey, and then only `all` starts",
    )
    data_dir: Path = Field(
        Path(".data"), description="folder of the embedded Valkey and of what `all` makes at its first start"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: Port = Field(8000, description="port of the gateway; in `all` the only port")
    edge_port: Port = Field(8001, description="port of the socket edge when it runs apart")
    dispatcher_port: Port = Field(8002, description="port of the webhook dispatcher's health and metrics")
    reaper_port: Port = Field(8003, description="port of the expiry reaper's health and metrics")
    metrics_port: Port | None = Field(
        None, description="a port for metrics alone; unset: they are on each service's own"
    )
    jobs_redis_url: str | None = Field(
        None,
        repr=False,
        description="another Redis for the job queue, no cluster; unset: the same as REDIS_URL",
    )
    admin_token: SecretStr | None = Field(
        None,
        description=f"secret for accounts and API keys, at least {ADMIN_TOKEN_LENGTH} characters; "
        "unset: `all` makes one at its first start",
    )
    replica: str = Field(
        default_factory=_host_name,
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="name of this process among its like; unset: the host's name",
    )
    ping_interval_s: Seconds = Field(20, description="an idle socket is pinged this often")
    ping_timeout_s: Seconds = Field(20, description="a socket that owes a pong for longer is cut")
    heartbeat_s: Seconds = Field(5, description="a replica says this often that it lives")
    heartbeat_ttl_s: Seconds = Field(
        15, description="a replica silent for longer counts as gone; more than HEARTBEAT_S"
    )
    redis_outage_limit_s: Seconds = Field(120, description="sockets are closed when Redis is away for longer")
    drain_delay_s: Annotated[float, Field(ge=0, le=600)] = Field(
        0, description="an edge that is told to stop is unready for so long before it lets go of anything"
    )
    drain_window_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        0, description="it then closes its sockets evenly over so long; 0: all at once"
    )
    batch_limit: Count = Field(10_000, description="notifications read from a queue at once, at most")
    frame_limit_bytes: Bytes = Field(48 * 1024, description="a frame's size; a larger single item goes alone")
    in_flight_limit: Count = Field(1000, description="unacked notifications per socket, at most")
    in_flight_bytes: Bytes = Field(1024 * 1024, description="unacked bytes per socket, at most")
    websocket_expiry_s: LongSeconds = Field(
        86_400, description="a WebSocket channel without a socket for so long ends, and its queue with it"
    )
    pull_expiry_s: LongSeconds = Field(
        600, description="a long-poll channel without a poll for so long ends, and its queue with it"
    )
    long_poll_wait_s: Seconds = Field(30, description="a long poll with nothing to tell is answered with 204")
    webhook_expiry_s: LongSeconds = Field(
        86_400, description="a webhook whose every try failed for so long ends, and its queue with it"
    )
    channel_idle_expiry_s: LongSeconds | None = Field(
        None, description="a webhook that had no data for so long ends; unset: never"
    )
    webhook_batch_bytes: Bytes = Field(
        256 * 1024, description="the body of one request to a webhook; a larger single item goes alone"
    )
    webhook_requests: Count = Field(
        500, description="requests to webhooks under way at once in one dispatcher, at most"
    )
    sweep_s: Seconds = Field(5, description="a dispatcher looks this often for webhooks that nobody woken")
    blackhole_idle_s: Seconds = Field(
        3600, description="a Blackhole socket whose client says nothing for so long is closed"
    )
    max_sockets_per_address: Count | None = Field(
        None, description="Blackhole and Cognism sockets from one address on one edge, at most; unset: any"
    )
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = Field(
        (),
        description="networks of proxies whose X-Forwarded-For is believed, as in 10.0.0.0/8; unset: none",
    )
    notification_lifetime_s: LongSeconds = Field(
        86_400, description="notifications older than this are dropped from a queue"
    )
    queue_limit_bytes: Annotated[int, Field(ge=1024 * 1024, le=1024**4)] = Field(
        50 * 1024 * 1024, description="a queue's size; over it the oldest notifications are dropped"
    )
    allow_private_callbacks: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = Field(
        (),
        description="1: callbacks may lead to private addresses, too; or to these networks only, "
        "as in 10.0.0.0/8,fd00::/8; cloud metadata stays closed",
    )
    callback_timeout_s: Seconds = Field(
        20, description="a callback is answered within so long, its look-up and connection included"
    )
    callback_client_cert: Path | None = Field(
        None, description="PEM file: the certificate shown to callbacks by https that ask for one"
    )
    callback_client_key: Path | None = Field(
        None, validate_default=True, description="PEM file: its key, without a password"
    )
    callback_ca: Path | None = Field(
        None, description="PEM file: authorities trusted for callbacks by https, besides the system's"
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] = Field(
        ("*",),
        description="web pages that may use the API: * for all, none, or a list as in "
        "https://app.example,https://admin.example",
    )
    pelion_close_codes: Annotated[Literal[2019, 2020], BeforeValidator(_year)] = Field(
        2019, description="close codes as the Pelion service had them in 2019 or 2020"
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = Field(
        "text", description="text, or json: one object a line"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="debug, info, warning or error"
    )
    otlp_url: str | None = Field(
        None,
        repr=False,
        pattern=r"^https?://[^/\s]",
        description="traces go there as OTLP over HTTP, as in http://collector:4318; unset: no traces",
    )

    @field_validator("redis_url", "jobs_redis_url")
    @classmethod
    def _is_redis_url(cls, value: str | None) -> str | None:
        return None if value is None else checked_url(value)

    @field_validator("jobs_redis_url")
    @classmethod
    def _is_no_cluster(cls, value: str | None) -> str | None:
        if is_cluster(value):
            raise ValueError("should not be a cluster's: arq's keys and pipelines span slots")
        return value

    @field_validator("admin_token")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        if len(value.get_secret_value()) < ADMIN_TOKEN_LENGTH:
            raise ValueError(f"should have at least {ADMIN_TOKEN_LENGTH} characters")
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("should be of visible ASCII characters, without a space")
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
            try:
                # An empty password: OpenSSL would otherwise ask for one at the terminal.
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, value, password="")
            except OSError as error:
                raise ValueError(f"cannot be used with {cert}: {error.strerror}") from None
        return value

    @field_validator("callback_ca")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
            except OSError as error:
                raise ValueError(f"should be a PEM file of certificates: {error.strerror}") from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: no .env file, no hidden look at the environment."""
        return (init_settings,)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in `environ` (None: the environment of this process); an empty value counts as unset.

    Raises SettingsError, in one line that names every wrong variable.
    """
    environ = os.environ if environ is None else environ
    given = {
        field: environ[name] for field in Settings.model_fields if environ.get(name := _variable(field), "")
    }
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError("; ".join(_complaints(error))) from None


def unknown_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """Names in `environ` that look like settings and are none, each with the nearest known name if any."""
    environ = os.environ if environ is None else environ
    known = [_variable(field) for field in Settings.model_fields]
    unknown = []
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in known and name not in _NOT_OURS:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            unknown.append(f"{name} (did you mean {nearest[0]}?)" if nearest else name)
    return unknown


def settings_table() -> str:
    """Every setting's name, default and meaning, aligned for a terminal."""
    rows = [("NAME", "DEFAULT", "MEANING")]
    for field, info in Settings.model_fields.items():
        default = info.get_default()
        shown = "unset" if default in (None, ()) or info.default_factory is not None else _written(default)
        rows.append((_variable(field), shown, info.description or ""))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {default:{widths[1]}}  {text}" for name, default, text in rows)


def _written(value: object) -> str:
    """As it would be set."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _complaints(error: ValidationError) -> list[str]:
    complaints = []
    for detail in error.errors(include_url=False):
        field = str(detail["loc"][0])
        text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
        got = (
            ""
            if field in _CONFIDENTIAL or detail["input"] is None
            else f", got {str(detail['input'])[:80]!r}"
        )
        complaints.append(f"{_variable(field)}: {text}{got}")
    return complaints
