"""The cluster's DNS: NAME.NAMESPACE.svc.cluster.local from the API server, and no other name."""

import json
import socket
import socketserver
import struct
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

from tests.cluster.certificates import token, trust
from tests.cluster.places import DNS_IP

_A, _IN = 1, 1
_TTL_S = 5
# Response, authoritative, recursion available.
_FLAGS = 0x8580
_NO_SUCH_NAME, _FAILED = 3, 2
_POINTER_TO_NAME = 0xC00C


def addresses(name: str) -> list[str] | None:
    """A Service's address, or those of its ready pods if it is headless; None if there is no such Service."""
    words = name.lower().rstrip(".").split(".")
    if len(words) != 5 or words[2:] != ["svc", "cluster", "local"]:
        return None
    service, namespace = words[:2]
    try:
        address = _ask(f"/api/v1/namespaces/{namespace}/services/{service}")["spec"].get("clusterIP")
    except urllib.error.HTTPError as error:
        if error.code in (400, 404):
            return None
        raise
    if address and address != "None":
        return [address]
    label = f"kubernetes.io/service-name%3D{service}"
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}"
    endpoints = [each for part in _ask(path)["items"] for each in part.get("endpoints") or ()]
    return [ip for each in endpoints if each["conditions"].get("ready") for ip in each["addresses"]]


def response(query: bytes) -> bytes:
    """The response to one query. Raises an error of parsing if it is malformed."""
    number = query[:2]
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    kind, _ = struct.unpack_from("!HH", query, at + 1)
    question = query[12 : at + 5]
    try:
        found = addresses(".".join(labels))
        code = _NO_SUCH_NAME if found is None else 0
    except (OSError, ValueError, KeyError) as error:
        print(f"{'.'.join(labels)}: {error!r}", file=sys.stderr, flush=True)
        found, code = None, _FAILED
    records = [
        struct.pack("!HHHIH", _POINTER_TO_NAME, _A, _IN, _TTL_S, 4) + socket.inet_aton(ip)
        for ip in (found or ())
        if kind == _A
    ]
    return number + struct.pack("!HHHHH", _FLAGS | code, 1, len(records), 0, 0) + question + b"".join(records)


class _Datagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        query, own = self.request
        own.sendto(response(query), self.client_address)


class _Stream(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        (length,) = struct.unpack("!H", self.rfile.read(2))
        answer = response(self.rfile.read(length))
        self.wfile.write(struct.pack("!H", len(answer)) + answer)


def _ask(path: str) -> Any:
    request = urllib.request.Request(
        f"https://127.0.0.1:6443{path}", headers={"Authorization": f"Bearer {token('dns')}"}
    )
    with urllib.request.urlopen(request, timeout=5, context=trust()) as answer:
        return json.load(answer)


def main() -> None:
    streams = socketserver.ThreadingTCPServer((DNS_IP, 53), _Stream)
    threading.Thread(target=streams.serve_forever, daemon=True).start()
    socketserver.ThreadingUDPServer((DNS_IP, 53), _Datagram).serve_forever()


if __name__ == "__main__":
    main()
