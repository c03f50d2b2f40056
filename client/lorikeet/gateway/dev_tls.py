"""A certificate for trials: fal's Python client speaks https only."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 365


@dataclass(frozen=True)
class Certificate:
    """PEM files. A client trusts the gateway with `authority`: `SSL_CERT_FILE=<authority>`."""

    authority: Path
    chain: Path
    key: Path


def dev_certificate(folder: Path, host: str) -> Certificate:
    """Make an authority, and a certificate for `localhost`, the loopback addresses and `host`, in `folder`.

    They are new at each start: a private key that stays on the disk could sign for other hosts.
    """
    files = Certificate(folder / "ca.pem", folder / "dev-cert.pem", folder / "dev-key.pem")
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, subject = _name("Lorikeet development authority"), _name("Lorikeet gateway")
    authority = _builder(issuer, issuer, authority_key.public_key())
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = _builder(subject, issuer, key.public_key())
    certificate = certificate.add_extension(x509.SubjectAlternativeName(_alternatives(host)), critical=False)
    certificate = certificate.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    signed = [builder.sign(authority_key, hashes.SHA256()) for builder in (authority, certificate)]
    _write(files.authority, signed[0].public_bytes(serialization.Encoding.PEM))
    _write(files.chain, signed[1].public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    _write(files.key, key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
    )


def _alternatives(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    for address in dict.fromkeys(["127.0.0.1", "::1", host]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            if address != "localhost":
                names.append(x509.DNSName(address))
    return names


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
