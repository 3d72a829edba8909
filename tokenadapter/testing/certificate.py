"""A certificate for a server on loopback, from an authority that no one else trusts."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
import weakref
from pathlib import Path


class Certificate:
    """A server certificate for ``127.0.0.1`` and ``localhost``.

    :ivar context: the TLS context of a server that shows it.
    :ivar ca_file: a file with the certificate of its issuer, in PEM.  It lasts as long as this
        object, and at most as long as the process.
    :raises ImportError: if ``trustme`` is not installed.
    """

    def __init__(self) -> None:
        try:
            import trustme
        except ImportError as error:
            raise ImportError(
                "The certificate of an HTTPS token server is made by trustme, which is not "
                "installed: run `pip install 'tokenadapter[testing]'`, or give the server a "
                "context of your own with tls=."
            ) from error
        authority = trustme.CA()
        self.context: ssl.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(self.context)
        directory = tempfile.mkdtemp(prefix="token-server-")
        weakref.finalize(self, _remove, directory, os.getpid())
        path = Path(directory, "ca.pem")
        path.write_bytes(authority.cert_pem.bytes())
        self.ca_file: str = str(path)


def _remove(directory: str, owner: int) -> None:
    # Forked children inherit the object, and not the file.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
