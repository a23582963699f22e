"""Certificates created with openssl; skips the test without it."""

import subprocess
from collections.abc import Iterator
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

    def make(
        self,
        name: str,
        *,
        by: str = "",
        subject: str = "",
        password: str = "",
        is_authority: bool = False,
        is_bare: bool = False,
    ) -> None:
        """Creates an authority, or with `by` a certificate for 127.0.0.1 that the authority `by` signs.

        With both it is an intermediate authority.

        A bare one has no key usage and no identifiers of keys, as many private authorities make them.
        """
        signed_by = ("-CA", self.pem(by), "-CAkey", self.key(by)) if by else ()
        locked = ("-passout", f"pass:{password}") if password else ("-nodes",)
        config = self.folder / "openssl.cnf"
        # Otherwise the machine's own configuration adds extensions.
        config.write_text("[req]\ndistinguished_name = names\n[names]\n")
        command = (
            *(program("openssl"), "req", "-x509", "-config", config, "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", f"/CN={subject or name}", "-out", self.pem(name), "-keyout", self.key(name)),
            *(
                *signed_by,
                *_extensions(is_authority=is_authority or not by, is_root=not by, is_bare=is_bare),
                *locked,
            ),
        )
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            missing(f"an openssl that creates such certificates ({made.stderr[-200:]})")


def _extensions(*, is_authority: bool, is_root: bool, is_bare: bool) -> Iterator[str | Path]:
    kind = "TRUE" if is_authority else "FALSE"
    texts = [f"basicConstraints=critical,CA:{kind}"]
    if not is_authority:
        texts.append("subjectAltName=IP:127.0.0.1")
    if is_bare:
        # OpenSSL since 3.2 adds them by itself.
        texts += ["subjectKeyIdentifier=none", "authorityKeyIdentifier=none"]
    else:
        usage = "keyCertSign,cRLSign" if is_authority else "digitalSignature"
        texts += [f"keyUsage=critical,{usage}", "subjectKeyIdentifier=hash"]
        texts += [] if is_root else ["authorityKeyIdentifier=keyid"]
    for text in texts:
        yield from ("-addext", text)
