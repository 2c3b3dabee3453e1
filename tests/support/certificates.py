"""A certificate authority for one test run."""

from __future__ import annotations

from pathlib import Path

import trustme


class Authority:
    """Makes certificates in `folder`: `ca.pem`, and `<name>.pem` with `<name>.key`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key; the certificate is good for 127.0.0.1 and localhost."""
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        issued = self._authority.issue_cert("127.0.0.1", "localhost", common_name=name)
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key
