"""A certificate authority of the test's own, and a server's certificate signed by it."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_authority(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Return the authority's certificate as a file, and how a server at 127.0.0.1 speaks TLS that it vouches for."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, own_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, "server")
    )
    ca = _builder(ca_name, ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca_certificate = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = _builder(own_name, ca_name, key.public_key()).add_extension(address, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256())
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    chain, bundle = folder / f"{name}-server.pem", folder / f"{name}.pem"
    chain.write_bytes(key.private_bytes(*formats) + certificate.public_bytes(serialization.Encoding.PEM))
    bundle.write_bytes(ca_certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return bundle, context


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    day = datetime.timedelta(days=1)
    return (
        builder.not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(identifier, critical=False)
    )
