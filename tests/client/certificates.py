"""A certificate authority for one test run, made with the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Makes certificates in `folder`: `ca.pem`, and `<name>.pem` with `<name>.key`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        self._key = folder / "ca.key"
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(self._key)]
        _openssl("req", "-x509", *new_key, "-out", str(self.ca_file), "-subj", "/CN=test authority", "-days", "2")

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key; the certificate is good for 127.0.0.1 and localhost."""
        certificate, key, request = (self._folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key)]
        _openssl("req", *new_key, "-out", str(request), "-subj", f"/CN={name}")
        signed = ["-CA", str(self.ca_file), "-CAkey", str(self._key), "-CAcreateserial", "-days", "2"]
        _openssl("x509", "-req", "-in", str(request), *signed, "-out", str(certificate), "-extfile", str(extensions))
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
