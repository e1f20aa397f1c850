"""A certificate authority of one test, and a certificate for the servers and clients of this machine."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ADDRESS = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority's certificate, and a certificate that it signed with its key."""

    ca: Path
    cert: Path
    key: Path


def certificates_in(folder: Path) -> Certificates:
    """Make a new authority and a certificate for 127.0.0.1, in a new folder."""
    folder.mkdir()
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("authority", root, AUTHORITY).sign(root, hashes.SHA256())
    made.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    signed = _certificate("127.0.0.1", own, ADDRESS).sign(root, hashes.SHA256())
    made.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(_named(name)).issuer_name(_named("authority"))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    return builder.add_extension(extension, critical=True)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
