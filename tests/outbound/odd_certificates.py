"""Certificates with something wrong, beside those of the harness."""

import subprocess
from pathlib import Path

from tests.harness.certificates import Certificates
from tests.harness.programs import missing, program

_EXTENSIONS = "subjectAltName={name}\nbasicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\n"


def make_server_certificate(
    made: Certificates, name: str, *, by: str, alternative: str = "IP:127.0.0.1", days: int = 2
) -> None:
    """A server's certificate by an authority. With `days` of -1 it has expired."""
    request = _new_request(made, name)
    extensions = made.folder / f"{name}.ext"
    extensions.write_text(_EXTENSIONS.format(name=alternative) + "authorityKeyIdentifier=keyid\n")
    _openssl(
        *("x509", "-req", "-in", request, "-CA", made.pem(by), "-CAkey", made.key(by), "-CAcreateserial"),
        *("-days", str(days), "-extfile", extensions, "-out", made.pem(name)),
    )


def make_self_signed(made: Certificates, name: str) -> None:
    """A server's certificate that no authority has signed."""
    request = _new_request(made, name)
    extensions = made.folder / f"{name}.ext"
    extensions.write_text(_EXTENSIONS.format(name="IP:127.0.0.1"))
    _openssl(
        *("x509", "-req", "-in", request, "-signkey", made.key(name)),
        *("-days", "2", "-extfile", extensions, "-out", made.pem(name)),
    )


def _new_request(made: Certificates, name: str) -> Path:
    request = made.folder / f"{name}.csr"
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", made.key(name), "-out", request),
    )
    return request


def _openssl(*arguments: str | Path) -> None:
    made = subprocess.run((program("openssl"), *arguments), capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"an openssl that creates such certificates ({made.stderr[-200:]})")
