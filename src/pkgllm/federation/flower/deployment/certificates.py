"""Certificates for TLS and keys for node authentication: who may take part, and who is who.

    FOLDER/authority/   ca.key, ca.crt            signs the server's certificate; needed no more
    FOLDER/server/      ca.crt, server.crt, server.key, executor.secret, clients/ID.pub
    FOLDER/clients/ID/  ca.crt, client.key, client.pub

Private keys and the secret can be read by their owner alone (mode 0600).
"""

import ipaddress
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pkgllm.errors import DataError, RunError
from pkgllm.files import cannot

logger = logging.getLogger(__name__)

AUTHORITY_CERTIFICATE = "ca.crt"
SERVER_CERTIFICATE = "server.crt"
SERVER_KEY = "server.key"
EXECUTOR_SECRET = "executor.secret"
"""Whoever knows it may run the server's side of a run."""
CLIENT_KEY = "client.key"
CLIENT_PUBLIC_KEY = "client.pub"
CLIENTS = "clients"

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 397


def folder_name(client: str) -> str:
    """Return the name of a client's file or folder; any id makes a safe one.

    Example:
        >>> folder_name("a/b"), folder_name("..")
        ('a%2Fb', '%2E%2E')
    """
    # quote leaves full stops alone, and "." and ".." are folders already.
    return quote(client, safe="").replace(".", "%2E")


def write_keys(folder: Path, *, hosts: Sequence[str], clients: Sequence[str]) -> None:
    """Make an authority, the server's certificate, and one pair of keys for each client.

    Raises:
        RunError: If something is in the folder already, or it cannot be written.
        ValueError: If there is no host.
    """
    if not hosts:
        raise ValueError("hosts must name at least one host, got none")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunError(
                f"--output {folder}: must be new or empty, holds files; keys are never replaced"
            )
        authority, server = folder / "authority", folder / "server"
        for place in (authority, server, server / CLIENTS, folder / CLIENTS):
            place.mkdir(mode=0o700)
        authority_key, server_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        root = _authority_certificate(authority_key)
        _write(authority / "ca.key", _private_pem(authority_key))
        _write(authority / AUTHORITY_CERTIFICATE, _pem(root))
        _write(server / AUTHORITY_CERTIFICATE, _pem(root))
        signed = _server_certificate(server_key, authority_key, root, hosts)
        _write(server / SERVER_CERTIFICATE, _pem(signed))
        _write(server / SERVER_KEY, _private_pem(server_key))
        _write(server / EXECUTOR_SECRET, secrets.token_hex(32).encode())
        for client in clients:
            name = folder_name(client)
            own = folder / CLIENTS / name
            own.mkdir(mode=0o700)
            _write(own / AUTHORITY_CERTIFICATE, _pem(root))
            public = _write_pair(own)
            _write(server / CLIENTS / f"{name}.pub", public)
    except OSError as error:
        raise cannot("write", Path(error.filename or folder), error) from error


def read_roster(server: Path) -> Mapping[str, bytes]:
    """Return the clients that the server lets take part, with their public keys.

    A file that holds no such key is left out with a warning.

    Args:
        server: The folder ``server``; it holds ``clients/ID.pub``, as OpenSSH writes them.

    Returns:
        The keys in PEM, as Flower sends them, by client id.

    Raises:
        DataError: If there is no key.
    """
    roster, faults = read_public_keys(server)
    for fault in faults:
        logger.warning("%s; it is left out", fault)
    if not roster:
        raise DataError(
            f"{server / CLIENTS}: must hold one ID.pub for each client that may take part, has none"
        )
    return roster


def read_public_keys(server: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return the keys of :func:`read_roster`, and what is wrong with other files, a line each."""
    keys: dict[str, bytes] = {}
    faults: list[str] = []
    for path in sorted((server / CLIENTS).glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        # A file that is only half copied, or is none of ours, raises more than it documents.
        except Exception as error:
            faults.append(f"{path}: must be a public key of OpenSSH: {error}")
            continue
        if not isinstance(key, ec.EllipticCurvePublicKey):
            faults.append(
                f"{path}: must be a key on a NIST curve, as ssh-keygen -t ecdsa -b 384 makes"
            )
            continue
        pem = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        owner = next((client for client, other in keys.items() if other == pem), None)
        if owner is not None:
            faults.append(f"{path}: must be a key of its own, is that of client {owner}")
            continue
        keys[unquote(path.stem)] = pem
    return keys, faults


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a client's private key.

    Raises:
        DataError: If it is not one.
    """
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise DataError(f"{path}: must be a private key of OpenSSH: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataError(
            f"{path}: must be a key on a NIST curve, as ssh-keygen -t ecdsa -b 384 makes"
        )
    return key


def write_secret(path: Path) -> bytes:
    """Write a fresh secret that only the owner can read, over an older one, and return it."""
    secret = secrets.token_hex(32).encode()
    path.unlink(missing_ok=True)
    _write(path, secret)
    return secret


def _write(path: Path, content: bytes) -> None:
    public = path.suffix in (".crt", ".pub")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    if public:
        path.chmod(0o644)


def _write_pair(folder: Path) -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    _write(folder / CLIENT_KEY, private)
    _write(folder / CLIENT_PUBLIC_KEY, public + b"\n")
    return public + b"\n"


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    # An hour of grace, because the clocks of people's machines differ.
    start = datetime.now(UTC) - timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("pkgllm federation authority")
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder(name, name, key.public_key(), _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(own, critical=False)
        .sign(key, hashes.SHA384())
    )


def _server_certificate(
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    hosts: Sequence[str],
) -> x509.Certificate:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        _builder(_name("pkgllm federation server"), root.subject, key.public_key(), _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority, hashes.SHA384())
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
