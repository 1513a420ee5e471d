"""A certificate for the loopback interface, made as docs/tls.md tells the operator to."""

import subprocess

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=CA:FALSE
extendedKeyUsage=serverAuth
"""


def make_certificate(directory):
    """Makes an authority, a certificate and its key; returns the three files in this order."""
    authority, authority_key = directory / "ca.pem", directory / "ca-key.pem"
    certificate, key = directory / "fullchain.pem", directory / "privkey.pem"
    request, extensions = directory / "edgepush.csr", directory / "edgepush.ext"
    extensions.write_text(EXTENSIONS)
    of_authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl("req", "-x509", *NEW_KEY, "-keyout", authority_key, "-out", authority, "-subj", "/CN=Home", *of_authority)
    openssl("req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    signing = ["-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-extfile", extensions]
    openssl("x509", "-req", "-in", request, *signing, "-out", certificate)
    return authority, certificate, key


def openssl(*arguments):
    """Runs OpenSSL, which talks only if it fails."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}"
