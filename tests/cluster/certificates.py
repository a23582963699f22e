"""The cluster's certificates and tokens; only its own network namespace reaches what they open."""

import ssl
import subprocess
from pathlib import Path

from tests.cluster.places import ADMIN_CONFIG, API_SERVICE_IP, NODE, NODE_IP, RUN

FOLDER = RUN / "pki"
_DAYS = "30"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", _DAYS)
_API_NAMES = ("DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc")
# User and groups of each token. The node's name and group are what the Node authorizer goes by.
WHO = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", "system:masters"),
    "dns": ("system:dns", "system:masters"),
    "metrics": ("system:metrics-server", "system:masters"),
    "node": (f"system:node:{NODE}", "system:nodes"),
    "policies": ("system:network-policies", "system:masters"),
    "proxy": ("system:kube-proxy", ""),
    "scheduler": ("system:kube-scheduler", ""),
}


def create() -> None:
    """Certificates, tokens and kubeconfigs."""
    FOLDER.mkdir(parents=True)
    _openssl("req", "-x509", *_EC, "-subj", "/CN=cluster-ca", "-keyout", key("ca"), "-out", pem("ca"))
    addresses = [f"IP:{address}" for address in ("127.0.0.1", NODE_IP, API_SERVICE_IP)]
    signed("api", "kube-apiserver", "-addext", f"subjectAltName={','.join([*addresses, *_API_NAMES])}")
    signed("front-proxy", "front-proxy")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key("accounts"))
    _openssl("ec", "-in", key("accounts"), "-pubout", "-out", pem("accounts"))
    lines = [f'{token(name)},{user},{name},"{group}"\n' for name, (user, group) in WHO.items()]
    (FOLDER / "tokens.csv").write_text("".join(lines))
    for name in WHO:
        config(name).write_text(_KUBECONFIG.format(ca=pem("ca"), token=token(name)))


def token(name: str) -> str:
    return f"{name}-token"


def trust() -> ssl.SSLContext:
    """What a client of the API server trusts."""
    return ssl.create_default_context(cafile=pem("ca"))


def key(name: str) -> str:
    return str(FOLDER / f"{name}.key")


def pem(name: str) -> str:
    return str(FOLDER / f"{name}.pem")


def config(name: str) -> Path:
    """The kubeconfig of one of WHO."""
    return ADMIN_CONFIG if name == "admin" else RUN / f"{name}.kubeconfig"


def signed(name: str, subject: str, *more: str) -> None:
    """A certificate of the cluster's authority, and its key."""
    by = ("-CA", pem("ca"), "-CAkey", key("ca"))
    _openssl(
        "req", "-x509", *_EC, *by, "-subj", f"/CN={subject}", "-keyout", key(name), "-out", pem(name), *more
    )


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


_KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: own, cluster: {{server: "https://127.0.0.1:6443", certificate-authority: {ca}}}}}]
users: [{{name: own, user: {{token: {token}}}}}]
contexts: [{{name: own, context: {{cluster: own, user: own}}}}]
current-context: own
"""
