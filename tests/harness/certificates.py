"""Certificates created with openssl; skips the test without it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness.programs import missing, program


@dataclass(frozen=True)
class Certificates:
    """A folder of certificate authorities and their certificates."""

    folder: Path

    def pem(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def make(self, name: str, *, by: str = "", subject: str = "", password: str = "") -> None:
        """Creates a certificate signed by `by`, or self-signed."""
        signed_by = ("-CA", self.pem(by), "-CAkey", self.key(by)) if by else ()
        names = ("-addext", "subjectAltName=IP:127.0.0.1") if by else ()
        locked = ("-passout", f"pass:{password}") if password else ("-nodes",)
        command = (
            *(
                program("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-days",
                "2",
            ),
            *("-subj", f"/CN={subject or name}", "-out", self.pem(name), "-keyout", self.key(name)),
            *(*signed_by, *names, *locked),
        )
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            missing(f"an openssl that creates such certificates ({made.stderr[-200:]})")
