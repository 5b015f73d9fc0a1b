"""Addresses that are always refused, and loopback, in every notation that a system takes for them."""

import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_egress import dials

from gateway.dispatch import hosts
from gateway.dispatch.egress import EgressGuard, Kind


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::a9fe:a9fe",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:a9:fe:a9fe::",
        "64:ff9b:1:0:a9:fea9:fe00:0",
        "2001:db8::5efe:a9fe:a9fe",
        "2001:db8::200:5efe:a9fe:a9fe",
        "2001:0:a9fe:a9fe::1",
        "2001:0:808:808::5601:5601",
        "192.0.0.192",
        "fd00:ec2::23",
    ],
)
def test_always_refused(address: str) -> None:
    """Metadata, link-local, multicast, unspecified and broadcast stay closed whatever OUTBOUND_ALLOW says."""
    guard = EgressGuard(["0.0.0.0/0", "::/0", "metadata.internal"], True)
    assert not dials(guard, address, host="metadata.internal")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "017700000001",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "１２７.0.0.1",
        "127。0。0。1",
        "user:pw@127.0.0.1",
        "127.0.0.1..",
        "0x7F.0x0.0x0.0x1",
        "0x7f.0.1",
        "127.1.",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2001:0:7f00:1::]",
        "①②⑦.0.0.1",
        "127．0．0．1",
        "127｡0.0.1",
        "%31%32%37.0.0.1",
        "127%2e0.0.1",
    ],
)
def test_loopback_in_any_notation(host: str) -> None:
    """However a loopback address is written, the URL is refused at enqueue and the message names the
    setting."""
    told = EgressGuard().check_literal(f"http://{host}:9000/x")
    assert told is not None
    assert told.kind is Kind.LOOPBACK
    assert "OUTBOUND_ALLOW" in told.message


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """An IPv4 address that nobody may call, as someone could write it who tries."""
    network = draw(st.sampled_from(["127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/4"]))
    number = draw(st.integers(*(int(edge) for edge in (ip_network(network)[0], ip_network(network)[-1]))))
    packed = number.to_bytes(4)
    if draw(st.booleans()):
        high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
        forms = [f"::ffff:{high}:{low}", f"64:ff9b::{high}:{low}", f"2002:{high}:{low}::1", f"::ffff:0:{high}:{low}"]
        # What reads as 0.x.y.z there is of a longer prefix, or leads nowhere.
        forms += [f"64:ff9b:1::{high}:{low}"] if packed[0] else []
        forms += [f"2001:db8::5efe:{high}:{low}", f"::ffff:{ip_address(packed)}"]
        return f"[{draw(st.sampled_from(forms))}]"
    kept = draw(st.integers(0, 3))  # bytes that stand alone; the last part is the rest
    parts = [*packed[:kept], int.from_bytes(packed[kept:])]
    text = ".".join(
        draw(st.sampled_from(["{:d}", "0{:o}", "0x{:x}", "0X{:X}", "00{:o}"])).format(part) for part in parts
    )
    text += draw(st.sampled_from(["", ".", ".."]))
    wide = str.maketrans(
        {str(digit): chr(0xFF10 + digit) for digit in range(10)} | {".": draw(st.sampled_from("．。｡."))}
    )
    return text.translate(wide) if draw(st.booleans()) else text


@given(spelled())
def test_no_spelling_of_a_forbidden_address_passes(host: str) -> None:
    """Bases, short forms, widths, dots and translations, in every combination: refused at enqueue."""
    assert EgressGuard().check_literal(f"http://{host}:9000/x") is not None


@given(st.text("0123456789abcdefx.:", min_size=1, max_size=24))
def test_hosts_are_read_as_the_system_reads_them(host: str) -> None:
    """What getaddrinfo(3) takes for an address is the same address to the rule, so none passes as a name."""
    try:
        [found, *_] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return
    told = hosts.literal_address(str(found[4][0]))
    assert told is not None
    assert hosts.literal_address(host) == told
