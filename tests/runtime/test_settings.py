"""Settings are parsed from the environment; a wrong one raises one line that names it."""

from pathlib import Path

import pytest

from shared.runtime.settings import Settings, SettingsError, load_settings, unknown_names
from shared.runtime.settings_list import settings_table

SECRET = "s3cret-s3cret-s3cret"


def test_the_defaults() -> None:
    settings = load_settings({})

    assert settings.redis_url is None
    assert settings.admin_token is None
    assert settings.data_dir == Path(".data")
    assert (settings.host, settings.port, settings.edge_port) == ("127.0.0.1", 8000, 8001)
    assert (settings.ping_interval_s, settings.heartbeat_s, settings.heartbeat_ttl_s) == (20, 5, 15)
    assert (settings.frame_limit_bytes, settings.in_flight_bytes) == (49_152, 1_048_576)
    assert (settings.pelion_close_codes, settings.log_format, settings.log_level) == (2019, "text", "info")


def test_values_are_typed() -> None:
    settings = load_settings(
        {
            "NOTIFY_REDIS_URL": "unix:///run/valkey.sock",
            "NOTIFY_DATA_DIR": "/var/lib/notify",
            "NOTIFY_PORT": "9000",
            "NOTIFY_PING_INTERVAL_S": "0.5",
            "NOTIFY_PELION_CLOSE_CODES": "2020",
            "NOTIFY_LOG_LEVEL": "INFO",
            "NOTIFY_ADMIN_TOKEN": SECRET,
        }
    )

    assert settings.redis_url == "unix:///run/valkey.sock"
    assert settings.data_dir == Path("/var/lib/notify")
    assert (settings.port, settings.ping_interval_s, settings.pelion_close_codes) == (9000, 0.5, 2020)
    assert settings.log_level == "info"
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == SECRET


def test_an_empty_value_counts_as_unset() -> None:
    assert load_settings({"NOTIFY_PORT": "", "NOTIFY_REDIS_URL": ""}) == load_settings({})


def test_neither_a_dotenv_file_nor_another_environment_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("NOTIFY_PORT=9001\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTIFY_PORT", "9002")

    assert load_settings({}).port == 8000
    assert load_settings().port == 9002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFY_PORT", "abc"),
        ("NOTIFY_PORT", "65536"),
        ("NOTIFY_EDGE_PORT", "0"),
        ("NOTIFY_PING_INTERVAL_S", "-1"),
        ("NOTIFY_PING_TIMEOUT_S", "inf"),
        ("NOTIFY_REDIS_OUTAGE_LIMIT_S", "nan"),
        ("NOTIFY_BATCH_LIMIT", "0"),
        ("NOTIFY_FRAME_LIMIT_BYTES", "48k"),
        ("NOTIFY_PELION_CLOSE_CODES", "2021"),
        ("NOTIFY_LOG_FORMAT", "xml"),
        ("NOTIFY_LOG_LEVEL", "loud"),
        ("NOTIFY_ALLOW_PRIVATE_CALLBACKS", "yes please"),
        ("NOTIFY_ALLOW_PRIVATE_CALLBACKS", "10.0.0.1/8"),
        ("NOTIFY_ALLOW_PRIVATE_CALLBACKS", "10.0.0.0/8,"),
        ("NOTIFY_ALLOWED_ORIGINS", "app.example"),
        ("NOTIFY_ALLOWED_ORIGINS", "https://app.example/"),
        ("NOTIFY_ALLOWED_ORIGINS", "*,https://app.example"),
        ("NOTIFY_ALLOWED_ORIGINS", "https://app.example,"),
        ("NOTIFY_CALLBACK_TIMEOUT_S", "0"),
        ("NOTIFY_CALLBACK_CA", "/no/such/file"),
        ("NOTIFY_REPLICA", "two words"),
        ("NOTIFY_REPLICA", "line\n"),
        ("NOTIFY_REPLICA", "a" * 101),
    ],
)
def test_the_error_for_a_wrong_value_is_one_line_with_name_and_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value})

    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert repr(value[:80]) in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFY_ADMIN_TOKEN", "Zq7xWvKj"),
        ("NOTIFY_ADMIN_TOKEN", "Zq7xWvKj Zq7xWvKj Zq7xWvKj"),
        ("NOTIFY_REDIS_URL", "mysql://user:Zq7xWvKj@host/0"),
        ("NOTIFY_REDIS_URL", "redis://user:Zq7x/WvKj@host:6379/0"),
        ("NOTIFY_REDIS_URL", "redis://:6379/Zq7xWvKj"),
        ("NOTIFY_REDIS_URL", "redis://host/Zq7xWvKj"),
        ("NOTIFY_REDIS_URL", "redis://[Zq7xWvKj/0"),
        ("NOTIFY_REDIS_URL", "redis://[Zq7xWvKj]/0"),
        ("NOTIFY_REDIS_URL", "redis://:Zq7xWvKj\u2100@host/0"),
        ("NOTIFY_REDIS_URL", "redis://host/0?Zq7xWvKj=1"),
        ("NOTIFY_REDIS_URL", "redis://host/0?socket_timeout=Zq7xWvKj"),
        ("NOTIFY_REDIS_URL", "unix://Zq7xWvKj/valkey.sock"),
        ("NOTIFY_REDIS_URL", "Zq7xWvKj"),
        ("NOTIFY_REDIS_URL", "redis+cluster://user:Zq7x/WvKj@host:6379"),
        ("NOTIFY_REDIS_URL", "redis+cluster://user:Zq7xWvKj@host/0"),
        ("NOTIFY_REDIS_URL", "redis+sentinel://user:Zq7xWvKj@host"),
        ("NOTIFY_REDIS_URL", "redis+sentinel://host/service/0?sentinel_pasword=Zq7xWvKj"),
        ("NOTIFY_JOBS_REDIS_URL", "redis+cluster://user:Zq7xWvKj@host"),
        ("NOTIFY_OTLP_URL", "user:Zq7xWvKj@collector"),
        ("NOTIFY_EGRESS_PROXY", "https://user:Zq7xWvKj@proxy:3128"),
        ("NOTIFY_EGRESS_PROXY", "socks5://user:Zq7xWvKj@proxy"),
        ("NOTIFY_EGRESS_PROXY", "user:Zq7xWvKj@proxy:3128"),
        ("NOTIFY_EGRESS_PROXY", "http://user:Zq7x/WvKj@proxy:3128"),
        ("NOTIFY_EGRESS_PROXY", "http://proxy:3128/Zq7xWvKj"),
        ("NOTIFY_EGRESS_PROXY", "http://proxy:3128?Zq7xWvKj"),
        ("NOTIFY_EGRESS_PROXY", "http://[Zq7xWvKj/"),
        ("NOTIFY_EGRESS_PROXY", "http://proxy:Zq7xWvKj"),
    ],
)
def test_the_error_for_a_wrong_secret_never_shows_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value})

    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert "Zq7x" not in line
    assert "WvKj" not in line


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFY_HEARTBEAT_S": "5", "NOTIFY_HEARTBEAT_TTL_S": "5"},
        {"NOTIFY_HEARTBEAT_S": "20"},
        {"NOTIFY_HEARTBEAT_TTL_S": "4"},
    ],
)
def test_the_heartbeat_ttl_exceeds_the_interval(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"^NOTIFY_HEARTBEAT_TTL_S: .*NOTIFY_HEARTBEAT_S"):
        load_settings(environ)


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        ("1", ["0.0.0.0/0", "::/0"]),
        ("True", ["0.0.0.0/0", "::/0"]),
        ("0", []),
        ("false", []),
        ("", []),
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.0.0.0/8, fd00::/8,192.168.1.7", ["10.0.0.0/8", "fd00::/8", "192.168.1.7/32"]),
    ],
)
def test_private_callbacks_to_all_networks_or_some(value: str, networks: list[str]) -> None:
    allowed = load_settings({"NOTIFY_ALLOW_PRIVATE_CALLBACKS": value}).allow_private_callbacks

    assert [str(network) for network in allowed] == networks


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ("*",)),
        ("*", ("*",)),
        ("none", ()),
        ("https://App.example", ("https://app.example",)),
        (
            "https://a.b , http://localhost:3000,http://[::1]:8",
            ("https://a.b", "http://localhost:3000", "http://[::1]:8"),
        ),
    ],
)
def test_origins_all_some_or_none(value: str, origins: tuple[str, ...]) -> None:
    assert load_settings({"NOTIFY_ALLOWED_ORIGINS": value}).allowed_origins == origins


PAGES, OTHERS = "https://app.example", "https://other.example"


@pytest.mark.parametrize(
    ("environ", "origin"),
    [
        ({"NOTIFY_CORS_ORIGINS": PAGES}, PAGES),
        ({"NOTIFY_CORS_ORIGINS": PAGES, "NOTIFY_ALLOWED_ORIGINS": ""}, PAGES),
        ({"NOTIFY_CORS_ORIGINS": "", "NOTIFY_ALLOWED_ORIGINS": PAGES}, PAGES),
        ({"NOTIFY_CORS_ORIGINS": PAGES, "NOTIFY_ALLOWED_ORIGINS": PAGES}, PAGES),
    ],
)
def test_a_former_name_is_read(environ: dict[str, str], origin: str) -> None:
    assert load_settings(environ).allowed_origins == (origin,)
    assert unknown_names(environ) == []


def test_an_error_names_the_former_name_if_that_was_given() -> None:
    with pytest.raises(SettingsError, match=r"^NOTIFY_CORS_ORIGINS: should be "):
        load_settings({"NOTIFY_CORS_ORIGINS": "app.example"})


def test_two_values_by_two_names_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"^NOTIFY_CORS_ORIGINS: should not differ from NOTIFY_ALLOWED"):
        load_settings({"NOTIFY_CORS_ORIGINS": PAGES, "NOTIFY_ALLOWED_ORIGINS": OTHERS})


@pytest.mark.parametrize("url", ["http://proxy", "http://user:pass@proxy:3128/", "http://[fd00::1]:3128"])
def test_the_url_of_an_egress_proxy(url: str) -> None:
    settings = load_settings({"NOTIFY_EGRESS_PROXY": url})

    assert settings.egress_proxy == url
    assert "pass@" not in repr(settings)


@pytest.mark.parametrize("given", ["CERT", "KEY"])
def test_a_client_certificate_and_its_key_come_together(given: str) -> None:
    with pytest.raises(SettingsError, match=r"CLIENT_KEY: should be set together with .*CLIENT_CERT"):
        load_settings({f"NOTIFY_CALLBACK_CLIENT_{given}": "/some/file"})


def test_one_error_names_every_wrong_value() -> None:
    with pytest.raises(SettingsError, match=r"NOTIFY_PORT: .*; NOTIFY_BATCH_LIMIT: "):
        load_settings({"NOTIFY_PORT": "abc", "NOTIFY_BATCH_LIMIT": "many"})


def test_secrets_are_not_in_the_settings_repr() -> None:
    settings = load_settings(
        {"NOTIFY_ADMIN_TOKEN": SECRET, "NOTIFY_REDIS_URL": f"redis://:{SECRET}@host/0"},
    )
    assert SECRET not in repr(settings)


def test_an_unknown_name_comes_with_the_nearest_known_one() -> None:
    environ = {"NOTIFY_PROT": "1", "NOTIFY_COLOUR_OF_THE_SKY": "1", "NOTIFY_PORT": "1", "PATH": "/bin"}
    assert unknown_names(environ) == [
        "NOTIFY_COLOUR_OF_THE_SKY",
        "NOTIFY_PROT (did you mean NOTIFY_PORT?)",
    ]


def test_a_known_name_in_lower_case_is_unknown_and_systemds_own_is_ignored() -> None:
    assert unknown_names({"notify_port": "1"}) == ["notify_port (did you mean NOTIFY_PORT?)"]
    assert unknown_names({"NOTIFY_SOCKET": "/run/systemd/notify"}) == []


def test_the_table_shows_every_setting_with_default_and_meaning() -> None:
    rows = {line.split()[0]: line for line in settings_table().splitlines()}

    assert set(rows) == {"NAME"} | {f"NOTIFY_{field.upper()}" for field in Settings.model_fields}
    assert rows["NOTIFY_PORT"].split()[1] == "8000"
    assert rows["NOTIFY_REDIS_URL"].split()[1] == "unset"
    assert rows["NOTIFY_REPLICA"].split()[1] == "unset"
    meaning_column = rows["NAME"].index("MEANING")
    assert all(line[meaning_column - 1] == " " != line[meaning_column] for line in rows.values())
