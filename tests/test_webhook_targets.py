"""Where webhooks may go: addresses in every notation, URLs, and names that change their answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.contracts.url_policy import UrlPolicy, networks, normal_form
from engine.contracts.webhooks import AttemptOutcome
from engine.webhooks.delivery import EndpointReply
from engine.webhooks.sender import WebhookSender
from support.raw_bank import Received, raw_bank

PUBLIC_ONLY = UrlPolicy(https_only=False)
LOCAL = UrlPolicy(https_only=False, inside=networks("127.0.0.0/8,::1/128"))
ONE_ADDRESS = UrlPolicy(https_only=False, inside=networks("127.0.0.1/32"))
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses_are_reached(address: str) -> None:
    assert PUBLIC_ONLY.allows(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "169.254.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "fec0::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1",
        "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:0:7f00:1::",
        "100.100.100.200", "100.127.255.255", "168.63.129.16", "192.0.0.192", "192.88.99.1", "::ffff:100.100.100.200",
        "64:ff9b::168.63.129.16", "64:ff9b:1:808:8:800::", "fd20:ce::254", "3fff::1", "5f00::1",
        "2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1", "2002:a83f:8110::", "ff0e::1", "fe80::a9fe:a9fe",
    ],
)  # fmt: skip
def test_addresses_that_lead_inside_are_refused_in_every_notation(address: str) -> None:
    assert not PUBLIC_ONLY.allows(ip_address(address))


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "168.63.129.16", "fd00:ec2::254"])
def test_a_clouds_metadata_is_never_reached_whatever_network_is_allowed(address: str) -> None:
    everything = UrlPolicy(https_only=False, inside=networks("0.0.0.0/0,::/0"))

    assert not everything.allows(ip_address(address))
    assert everything.allows(ip_address("10.0.0.1"))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_what_a_deployment_allows_inside_is_reached_and_nothing_else(address: str) -> None:
    assert LOCAL.allows(ip_address(address))
    for other in ("169.254.169.254", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1"):
        assert not LOCAL.allows(ip_address(other))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop.example/", "shop.example/hooks", "http://", "http:///hooks", "file:///etc/passwd", "javascript:1",
        "http://user:secret@shop.example/", "http://shop.example:99999/", "http://[::1/", "http://shop.example/a b",
        "http://shop.example/\n", "http://bücher.example/", "http://shop.example/" + "x" * 2048, "",
        "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "http://[::ffff:127.0.0.1]/",
    ],
)  # fmt: skip
def test_urls_that_cannot_be_called_are_refused_in_words(url: str) -> None:
    assert PUBLIC_ONLY.refusal_of_url(url)


@pytest.mark.parametrize("url_policy", [PUBLIC_ONLY, LOCAL], ids=["production", "local stack"])
@pytest.mark.parametrize(
    "host",
    [
        "localhost.", "LOCALHOST.", "shop.localhost.", "localhost..", "127.0.0.1.", "shop.internal..", "metadata.",
        "metadata.google.internal", "Metadata.Google.Internal", "metadata.google.internal.", "metadata",
        "instance-data", "metadata.azure.com", "169.254.169.254.", "169.254.169.254", "100.100.100.200",
        "168.63.129.16", "0.0.0.0", "0", "0x0", "2852039166", "0xa9fea9fe", "0xA9FEA9FE", "025177524776",
        "169.254.43518", "169.16689662", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.254.169.0xfe",
        "0xa9.254.0251.254", "10.1",
        "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]",
        "[::]", "[fd00:ec2::254]", "[fe80::1%25eth0]", "[ff02::1]", "[v1.fe80]", "224.0.0.1", "100.64.0.1",
        "１６９.254.169.254", "169。254。169。254", "%31%36%39.254.169.254",
        "xn--8g7ccp.0.0.1", "xn--8g7ccp.example", "xn--7g7c.example",
    ],
)  # fmt: skip
def test_hosts_that_lead_inside_are_refused_at_registration_and_when_they_are_called(
    url_policy: UrlPolicy, host: str
) -> None:
    url = f"http://{host}/hooks"

    async def called() -> EndpointReply:
        async with WebhookSender(url_policy, timeout_ms=2000, resolver=FickleResolver(["93.184.216.34"])) as sender:
            return await sender.post(url, {}, b"{}")

    assert url_policy.refusal_of_url(url)
    assert asyncio.run(called()).outcome is AttemptOutcome.FORBIDDEN


@pytest.mark.parametrize("host", ["localhost", "shop", "hooks.internal", "printer.local", "shop.lan", "a.home.arpa"])
def test_names_of_a_network_of_its_own_are_for_deployments_that_allow_one(host: str) -> None:
    assert PUBLIC_ONLY.refusal_of_url(f"http://{host}/hooks")
    assert LOCAL.refusal_of_url(f"http://{host}/hooks") is None


@pytest.mark.parametrize(
    "target",
    [
        "/%7Eshop?sig=a%2Fb%21&x=%2C", "/a/%2e%2e/b", "/a/../b", "//x", "/hook?q=a+b%20c", "/x;y=1?u=%E4", "/?a?b",
        "/", "/%", "/%zz?%%", "/?%3f=%3F&%26=&&;", "/a//b/./c/", "/:@!$&'()*+,=-._~", '/<>"{}|^`[]', "/a\\b",
        "/?/..//../",
    ],
)  # fmt: skip
def test_a_url_is_called_as_it_was_registered(target: str) -> None:
    (url, reply, line, host) = called("http://127.0.0.1:{port}" + target)

    assert normal_form(url) == url
    assert reply.outcome is AttemptOutcome.DELIVERED
    assert line == f"POST {target} HTTP/1.1"
    assert host == [url.split("/")[2]]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:{port}", "/"),
        ("http://127.0.0.1:{port}?a=%7E", "/?a=%7E"),
        ("HTTP://LOCALHOST:{port}/A%7e", "/A%7e"),
        ("http://Shop.Example:{port}/", "/"),
        ("http://shop.example.:{port}/%2e", "/%2e"),
        ("http://xn--bcher-kva.example:{port}/", "/"),
        ("http://hooks_1.shop.example:{port}/", "/"),
    ],
)
def test_the_host_is_named_to_the_server_as_it_was_registered(url: str, target: str) -> None:
    url, reply, line, host = called(url)

    assert LOCAL.refusal_of_url(url) is None
    assert reply.outcome is AttemptOutcome.DELIVERED
    assert line == f"POST {target} HTTP/1.1"
    assert host == [url.split("/")[2].split("?")[0]]


def called(url: str) -> tuple[str, EndpointReply, str, list[str]]:
    """The URL with the port of a server, the reply, and the first line and Host that the server got."""

    async def scene() -> tuple[str, EndpointReply, str, list[str]]:
        async with (
            raw_bank(_closing) as server,
            WebhookSender(LOCAL, timeout_ms=2000, resolver=FickleResolver(["127.0.0.1"])) as sender,
        ):
            whole = url.replace("{port}", server.url.rsplit(":", 1)[1])
            reply = await sender.post(whole, {}, b"{}")
            (request,) = server.received
            return whole, reply, request.line, request.header("host")

    return asyncio.run(scene())


@pytest.mark.parametrize("port", [":", ":0", ":00", ":080", ":0443", ":65536", ":+80", ":8_0", ":٨٠"])
@pytest.mark.parametrize("host", ["shop.example", "[2606:4700::1111]"])
def test_a_port_that_would_be_sent_otherwise_is_refused(host: str, port: str) -> None:
    assert PUBLIC_ONLY.refusal_of_url(f"http://{host}{port}/hooks")
    assert PUBLIC_ONLY.refusal_of_url(f"http://{host}{port}")
    assert PUBLIC_ONLY.refusal_of_url(f"http://{host}:80/hooks") is None


def test_a_query_that_would_be_left_out_is_refused() -> None:
    assert PUBLIC_ONLY.refusal_of_url("http://shop.example/hook?")
    assert PUBLIC_ONLY.refusal_of_url("http://shop.example/hook?a=b?") is None


def test_production_takes_https_only() -> None:
    production = UrlPolicy(https_only=True)

    assert production.refusal_of_url("http://shop.example/hooks") == "must use https"
    assert production.refusal_of_url("https://shop.example/hooks") is None
    assert PUBLIC_ONLY.refusal_of_url("http://shop.example/hooks") is None


class FickleResolver(AbstractResolver):
    """Answers each question with the next of its answers, and the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def _closing(request: Received) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await request.writer.drain()
    request.writer.close()


def _posted(
    url_policy: UrlPolicy, resolver: FickleResolver, times: int = 1, url: str = "http://shop.example"
) -> list[EndpointReply]:
    """Replies to posts to shop.example, at the port of a server on 127.0.0.1; and how many connections it saw."""

    async def scene() -> list[EndpointReply]:
        async with (
            raw_bank(_closing) as server,
            WebhookSender(url_policy, timeout_ms=2000, resolver=resolver, names_s=0) as sender,
        ):
            port = server.url.rsplit(":", 1)[1]
            replies = [await sender.post(f"{url}:{port}/", {}, b"{}") for _ in range(times)]
            assert server.connections == sum(reply.outcome is AttemptOutcome.DELIVERED for reply in replies)
            return replies

    return asyncio.run(scene())


def test_the_address_that_was_judged_is_the_one_that_is_connected_to() -> None:
    resolver = FickleResolver(["127.0.0.1"], ["127.0.0.2"])

    (reply,) = _posted(ONE_ADDRESS, resolver)

    assert reply.outcome is AttemptOutcome.DELIVERED
    assert resolver.asked == 1  # a second look-up between judgement and connection could have answered otherwise


def test_a_name_that_moves_inside_is_refused_from_then_on() -> None:
    resolver = FickleResolver(["127.0.0.1"], ["127.0.0.2"])

    first, second = _posted(ONE_ADDRESS, resolver, times=2)

    assert first.outcome is AttemptOutcome.DELIVERED
    assert (second.outcome, second.error) == (AttemptOutcome.FORBIDDEN, "the address is not public")


def test_a_name_with_one_address_inside_is_refused_as_a_whole() -> None:
    (reply,) = _posted(ONE_ADDRESS, FickleResolver(["127.0.0.1", "169.254.169.254"]))

    assert reply.outcome is AttemptOutcome.FORBIDDEN


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]"])
def test_loopback_is_refused_under_all_its_names(host: str) -> None:
    async def scene() -> EndpointReply:
        async with WebhookSender(PUBLIC_ONLY, timeout_ms=2000) as sender:
            return await sender.post(f"http://{host}:9/", {}, b"{}")

    reply = asyncio.run(scene())

    assert reply.outcome in (AttemptOutcome.FORBIDDEN, AttemptOutcome.UNREACHABLE)
    assert "Refused" not in (reply.error or ""), "it was not even tried"
