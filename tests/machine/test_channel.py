"""Channels between our own processes: bytes, and descriptors with them."""

import os

from virtus.host import channel


def test_descriptors_pass_with_their_bytes() -> None:
    one, other = channel.pair()
    woken, wake = os.pipe()
    channel.send_descriptors(one, b"t", [woken, wake])
    data, received = channel.receive_descriptors(other, 1, 3)
    assert data == b"t"
    assert len(received) == 2
    assert not any(os.get_inheritable(descriptor) for descriptor in received)
    os.write(received[1], b"through")
    assert os.read(woken, 100) == b"through"
    for descriptor in (woken, wake, *received):
        os.close(descriptor)
    one.close()
    assert channel.receive_descriptors(other, 1, 3) == (b"", [])
    other.close()


def test_bytes_may_come_without_any() -> None:
    one, other = channel.pair()
    channel.send_descriptors(one, b"n", [])
    assert channel.receive_descriptors(other, 8, 3) == (b"n", [])
    one.close()
    other.close()


def test_a_pair_is_closed_on_exec() -> None:
    for end in channel.pair():
        assert not os.get_inheritable(end.fileno())
        end.close()
