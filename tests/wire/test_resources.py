"""URLs of single resources, and the lines that Redis holds of them."""

import pytest

from shared.model.bindings import Source
from shared.model.errors import Invalid
from shared.wire.pelion.resources import Resource, paths_of, resource_in, uri_list
from shared.wire.pelion.subscriptions import compiled
from tests.model.single import matches


@pytest.mark.parametrize(
    ("rest", "device", "path"),
    [
        ("lamp", "lamp", ""),
        ("lamp/", "lamp", ""),
        ("lamp//", "lamp", ""),
        ("lamp/3", "lamp", "/3"),
        ("lamp//3/0", "lamp", "/3/0"),
        ("lamp/%2F3%2f0", "lamp", "/3/0"),
        ("lamp/3/0/", "lamp", "/3/0/"),
        ("a%2Fb/3", "a/b", "/3"),
        ("%C3%B6/x%20y", "ö", "/x y"),
        ("a+b/%252F", "a+b", "/%2F"),
        ("a*b/*c", "a*b", "/*c"),
        ("n" * 64 + "/" + "p" * 127, "n" * 64, "/" + "p" * 127),
    ],
)
def test_valid_urls(rest: str, device: str, path: str) -> None:
    assert resource_in(rest) == Resource(device, path)


@pytest.mark.parametrize(
    ("rest", "field"),
    [
        ("/3", "device-id"),
        ("n" * 65, "device-id"),
        ("a%0Ab/3", "device-id"),
        ("%FF/3", "device-id"),
        ("a*", "device-id"),
        ("a/" + "p" * 128, "resourcePath"),
        ("a/%C3", "resourcePath"),
        ("a/3%093", "resourcePath"),
        ("a/3/*", "resourcePath"),
    ],
)
def test_invalid_urls(rest: str, field: str) -> None:
    with pytest.raises(Invalid) as raised:
        resource_in(rest)
    assert [name for name, _ in raised.value.fields] == [field]


def test_lines_match_exactly() -> None:
    resources = [Resource("lamp", "/3"), Resource("a/b \u2028ö", "/x y"), Resource("lamp", "/3/0")]
    stored = "".join(resource.line for resource in resources).encode()

    assert paths_of("lamp", stored) == ["/3", "/3/0"]
    assert paths_of("a/b \u2028ö", stored) == ["/x y"]
    assert paths_of("lam", stored) == paths_of("lamp", None) == []
    patterns = compiled(Source.RESOURCES, stored)
    assert len(patterns) == len(resources)
    for event in [*resources, Resource("lamp", "/30"), Resource("lam", "/3")]:
        wanted = [
            matches(p, "device.notifications", {"ep": event.device, "path": event.path}) for p in patterns
        ]
        assert wanted == [resource == event for resource in resources]


def test_device_line_is_the_prefix_of_its_own_lines_only() -> None:
    assert Resource("lamp", "/3").line.startswith(Resource("lamp", "").line)
    assert not Resource("lamp-1", "/3").line.startswith(Resource("lamp", "").line)


def test_uri_list_has_one_encoded_path_per_line() -> None:
    assert uri_list(["/3/0", "/x y/%/ö"]) == b"/3/0\n/x%20y/%25/%C3%B6"
