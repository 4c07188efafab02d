"""One stream of changes for all browsers: snapshot first, then changes; a slow browser slows nobody."""

import json

from astrocyte.pipeline.page.server.hub import HEARTBEAT, Hub


def read(frame):
    kind, number, data = (line.partition(b": ")[2] for line in frame.strip().split(b"\n"))
    return kind.decode(), int(number), json.loads(data)


async def test_a_browser_gets_the_snapshot_and_then_the_changes():
    hub = Hub()
    hub.publish({"a": 1, "b": 2})
    client = hub.join()
    assert read(await client.next_frame()) == ("snapshot", 1, {"set": {"a": 1, "b": 2}})
    hub.publish({"a": 1, "b": 3})
    hub.publish({"a": 1})
    assert read(await client.next_frame()) == ("patch", 2, {"set": {"b": 3}})
    assert read(await client.next_frame()) == ("patch", 3, {"del": ["b"]})


async def test_a_change_is_serialised_once_for_all():
    hub = Hub()
    clients = [hub.join() for _ in range(50)]
    for client in clients:
        await client.next_frame()
    hub.publish({"a": 1})
    frames = [await client.next_frame() for client in clients]
    assert all(frame is frames[0] for frame in frames)


async def test_a_slow_browser_loses_changes_for_a_snapshot_and_slows_no_other():
    hub = Hub()
    slow, quick = hub.join(), hub.join()
    await slow.next_frame()
    await quick.next_frame()
    for number in range(1, 101):
        hub.publish({"a": number})
        assert read(await quick.next_frame()) == ("patch", number, {"set": {"a": number}})
    assert (quick.skipped, slow.skipped > 0) == (0, True)
    assert read(await slow.next_frame()) == ("snapshot", 100, {"set": {"a": 100}})
    hub.publish({"a": 101})
    assert read(await slow.next_frame()) == ("patch", 101, {"set": {"a": 101}})


async def test_what_waits_for_one_browser_is_bounded():
    hub = Hub()
    client = hub.join()
    await client.next_frame()
    for number in range(1000):
        hub.publish({"a": "x" * 1000, "b": number})
    assert len(client._waiting) <= 8


async def test_nothing_is_sent_where_nothing_has_changed():
    hub = Hub()
    client = hub.join()
    await client.next_frame()
    assert hub.publish({"a": 1})
    assert not hub.publish({"a": 1})
    hub.heartbeat()
    assert read(await client.next_frame())[0] == "patch"
    assert await client.next_frame() == HEARTBEAT


async def test_a_browser_that_left_is_sent_nothing():
    hub = Hub()
    client = hub.join()
    await client.next_frame()
    hub.leave(client)
    hub.publish({"a": 1})
    assert hub.clients == 0
    assert not client._waiting
