import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection, create_server

import pytest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pkgllm.errors import DataError, RunError
from pkgllm.federation.flower.deployment.certificates import (
    read_private_key,
    read_public_keys,
    read_roster,
    write_keys,
)

CLIENTS = ("a", "b/../c", "..", "Zoë 1")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    write_keys(tmp_path / "keys", hosts=("127.0.0.1", "fl.example.org"), clients=CLIENTS)
    return tmp_path / "keys"


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.sendall(b"hello")
            except OSError:
                connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def greeting(port: int, authority: Path, name: str) -> bytes:
    context = ssl.create_default_context(cafile=str(authority))
    # What Python asks for from 3.13 on.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.recv(5)


@pytest.mark.parametrize("name", ["127.0.0.1", "fl.example.org"])
def test_a_client_trusts_the_server_under_each_name(keys: Path, name: str) -> None:
    with tls_server(keys / "server") as port:
        assert greeting(port, keys / "clients" / "a" / "ca.crt", name) == b"hello"


def test_a_client_trusts_no_other_name_and_no_other_authority(keys: Path, tmp_path: Path) -> None:
    write_keys(tmp_path / "others", hosts=("127.0.0.1",), clients=("a",))
    for authority, name in (
        (keys / "clients" / "a" / "ca.crt", "elsewhere.example.org"),
        (tmp_path / "others" / "clients" / "a" / "ca.crt", "127.0.0.1"),
    ):
        with tls_server(keys / "server") as port, pytest.raises(ssl.SSLCertVerificationError):
            greeting(port, authority, name)


def test_only_the_owner_can_read_what_is_secret(keys: Path) -> None:
    open_to_all = {"ca.crt", "server.crt", "client.pub"}
    for path in keys.rglob("*"):
        if path.is_file() and path.name not in open_to_all and path.suffix != ".pub":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    secret = {path.name for path in keys.rglob("*") if path.is_file()} - open_to_all
    assert {"ca.key", "server.key", "client.key", "executor.secret"} <= secret


def test_the_roster_knows_each_client_by_the_key_in_its_folder(keys: Path) -> None:
    roster = read_roster(keys / "server")
    assert sorted(roster) == sorted(CLIENTS)
    folders = [path for path in (keys / "clients").iterdir() if path.is_dir()]
    assert len(folders) == len(CLIENTS)
    found = set()
    for folder in folders:
        private = read_private_key(folder / "client.key")
        found.add(public_key_to_bytes(private.public_key()))
    assert found == set(roster.values())


def test_a_key_of_ssh_keygen_can_take_part(keys: Path, tmp_path: Path) -> None:
    own = tmp_path / "client.key"
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(own)]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    (keys / "server" / "clients" / "d.pub").write_bytes(own.with_suffix(".key.pub").read_bytes())
    assert "d" in read_roster(keys / "server")
    read_private_key(own)


def test_keys_are_never_replaced(keys: Path) -> None:
    before = (keys / "server" / "server.key").read_bytes()
    with pytest.raises(RunError, match="must be new or empty, holds files; keys are never"):
        write_keys(keys, hosts=("127.0.0.1",), clients=("a",))
    assert (keys / "server" / "server.key").read_bytes() == before


def test_a_roster_without_keys_is_refused(keys: Path) -> None:
    with pytest.raises(DataError, match=r"must hold one ID\.pub for each client"):
        read_roster(keys / "clients" / "a")
    with pytest.raises(DataError, match=r"server\.crt: must be a private key of OpenSSH"):
        read_private_key(keys / "server" / "server.crt")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80), kept=st.integers(0, 120))
def test_a_file_that_is_no_key_is_left_out_and_named(keys: Path, content: bytes, kept: int) -> None:
    """Also a key that is half copied, and one that is another client's."""
    folder = keys / "server" / "clients"
    whole = (folder / "a.pub").read_bytes()
    for damaged in (content, whole[:kept], whole[:kept] + content, whole):
        (folder / "new.pub").write_bytes(damaged)
        roster, faults = read_public_keys(keys / "server")
        assert sorted(roster) == sorted(CLIENTS)
        (fault,) = faults
        assert fault.startswith(f"{folder / 'new.pub'}: must be a ")
    (folder / "new.pub").unlink()
