"""The ways to a real registry: tokens, certificates of ours, proxies; by a site's settings."""

import ssl
import subprocess
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from services.converter.registries import Registries
from services.converter.registry import errors
from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import Credentials
from services.converter.registry.platforms import parse_platform
from services.converter.registry.transport import Patience
from shared.deadline import Deadline
from shared.errors import ConfigError
from shared.reference import parse_reference
from shared.settings.site import RegistrySettings
from shared.settings.types import this_platform
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.proxy import Proxy, proxying
from tests.support.registry import DebianRegistry, self_signed
from tests.support.token_server import TokenServer

HERE = parse_platform(this_platform())
QUICK = Patience(attempts=2, first_wait=0.01)
ALICE = Credentials("alice", "pa:ss")
IMAGE = build_image([layer_of({"f": File(noise(300_000))})])


async def pulled(client: RegistryClient, text: str, deadline: Deadline) -> int:
    """How many bytes of layers there are, for whoever may read them all."""
    reference = parse_reference(text)
    found = await client.resolve(reference, HERE, deadline)
    size = 0
    for layer in found.layers:
        async with aclosing(client.stream_blob(reference, layer, deadline)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
    return size


def locked(key: Path) -> Path:
    """The same key with a passphrase, for which nobody may be asked."""
    made = key.with_name("locked.pem")
    command = ["openssl", "pkey", "-in", str(key), "-aes128", "-passout", "pass:secret"]
    subprocess.run([*command, "-out", str(made)], check=True, capture_output=True)
    return made


def size_of(image: BuiltImage) -> int:
    return sum(len(layer.blob) for layer in image.layers)


async def test_a_registry_behind_a_token_server(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    users = {"alice": "pa:ss", "owner": "x"}
    tokens = TokenServer(tmp_path / "tokens", users, identities={"a-refresh-token": "alice"})
    # An open registry fills the directory; with tokens it is the same one.
    with DebianRegistry(tmp_path / "registry") as filling:
        for repository in ("public/tool", "team/tool", "locked/tool"):
            Pusher(filling.url).push(IMAGE, repository, "1")
    async with tokens:
        with DebianRegistry(tmp_path / "registry", tokens=tokens) as registry:
            registries = Registries(http, {}, QUICK, {})

            async def pull(name: str, user: Credentials | None) -> int:
                client = await registries.client(registry.host, user)
                return await pulled(client, f"{registry.host}/{name}:1", deadline)

            assert await pull("public/tool", None) == size_of(IMAGE)
            assert await pull("team/tool", ALICE) == size_of(IMAGE)
            # One token for each repository, for all of its parts.
            assert tokens.issued == [
                ("", "repository:public/tool:pull"),
                ("alice", "repository:team/tool:pull"),
            ]
            identity = Credentials("<token>", "a-refresh-token")
            assert await pull("team/tool", identity) == size_of(IMAGE)
            await (await registries.client(registry.host, identity)).log_in(deadline)
            # Not known, known and not allowed, and wrong are three things.
            for name, user, says in (
                ("team/tool", None, "log in first"),
                ("locked/tool", ALICE, "takes these credentials, but refuses access"),
                ("team/tool", Credentials("alice", "wrong"), "does not accept these"),
                ("team/tool", Credentials("<token>", "old"), "does not accept these"),
            ):
                with pytest.raises(errors.RegistryAccessError, match=says):
                    await pull(name, user)


async def test_a_registry_that_wants_to_see_a_certificate(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    server = self_signed(tmp_path / "server")
    ours, key = self_signed(tmp_path / "ours")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.read_bytes() + key.read_bytes())
    # Filled before it wants one.
    with DebianRegistry(tmp_path / "registry") as filling:
        Pusher(filling.url).push(IMAGE, "team/tool", "1")
    with DebianRegistry(tmp_path / "registry", tls=server, clients=ours) as registry:

        async def pull(**settings: Path) -> int:
            known = {registry.host: RegistrySettings(ca_file=server[0], **settings)}
            client = await Registries(http, known, QUICK, {}).client(registry.host)
            return await pulled(client, f"{registry.host}/team/tool:1", deadline)

        assert await pull(cert_file=ours, key_file=key) == size_of(IMAGE)
        assert await pull(cert_file=both) == size_of(IMAGE)
        # Whether its words arrive before it hangs up is chance.
        refused = (errors.RegistryTlsError, errors.RegistryConnectionLostError)
        with pytest.raises(refused, match=r"cert_file|broke"):
            await pull()
        strangers, strange_key = self_signed(tmp_path / "strangers")
        with pytest.raises(refused, match=r"cert_file|broke"):
            await pull(cert_file=strangers, key_file=strange_key)
        for wrong, says in (
            ({"cert_file": tmp_path / "none.pem"}, "cert_file .* cannot be read: No such file"),
            ({"cert_file": ours, "key_file": tmp_path / "n"}, "key_file .* cannot be read"),
            ({"cert_file": ours, "key_file": strange_key}, "not a certificate and its key"),
            ({"cert_file": ours}, "not a certificate and its key"),
            ({"cert_file": ours, "key_file": locked(key)}, "without a passphrase"),
        ):
            with pytest.raises(ConfigError, match=says):
                await pull(**wrong)


async def test_registries_beyond_a_proxy(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    certificate, key = self_signed(tmp_path / "tls", "registry.test")
    with (
        DebianRegistry(tmp_path / "plain") as plain,
        DebianRegistry(tmp_path / "secure", tls=(certificate, key)) as secure,
    ):
        Pusher(plain.url).push(IMAGE, "team/tool", "1")
        trust = ssl.create_default_context(cafile=certificate)
        Pusher(secure.url, tls=trust).push(IMAGE, "team/tool", "1")
        hosts = {"plain.test:5000": plain.host, "registry.test:443": secure.host}
        settings = {
            "plain.test:5000": RegistrySettings(insecure=True),
            "registry.test": RegistrySettings(ca_file=certificate),
        }

        async def pull(registry: str, environment: dict[str, str]) -> int:
            client = await Registries(http, settings, QUICK, environment).client(registry)
            return await pulled(client, f"{registry}/team/tool:1", deadline)

        async with proxying(Proxy(hosts, login="us:se_cret")) as proxy:
            env = {"https_proxy": proxy.url, "HTTP_PROXY": proxy.url}
            assert await pull("plain.test:5000", env) == size_of(IMAGE)
            assert await pull("registry.test", env) == size_of(IMAGE)
            assert {"GET plain.test:5000", "CONNECT registry.test:443"} == set(proxy.asked)
            proxy.asked.clear()
            # This machine's are asked directly, whatever is set.
            assert await pull(plain.host, env) == size_of(IMAGE)
            with pytest.raises(errors.RegistryError, match=r"registry\.test"):
                await pull("registry.test", env | {"NO_PROXY": "other, .example.org,test"})
            assert proxy.asked == []
            unknown = env["https_proxy"].replace("us:", "them:")
            with pytest.raises(errors.RegistryUnreachableError, match="wants a user name") as no:
                await pull("registry.test", {"HTTPS_PROXY": unknown})
            assert "se_cret" not in str(no.value)
            with pytest.raises(errors.RegistryUnreachableError, match=r"answers 403.*NO_PROXY"):
                await pull("elsewhere.test", env)
        with pytest.raises(errors.RegistryUnreachableError, match="nothing answers at the proxy"):
            await pull("registry.test", env)
