"""Topics in messages: the user's own first, and the one that was meant."""

import pytest

from astrocyte.pipeline.kafka.client import UnknownTopic, select_topics
from astrocyte.pipeline.kafka.topic_names import did_you_mean_topic
from astrocyte.pipeline.topology.topics import new_declared_topics
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.declarations import StreamDeclaration

OURS = ["alerts", "control.clock", "keyed.visitor.clicks", "rules", "simulations", "state.astrocyte-correlate"]
SHIPPED = ["mono.axon_1", "mono.axon_2", "mono.cell_vitals", "mono.truth"]
USERS = ["shop.public.orders", "web.clicks", "zoo.visits"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("orders", "shop.public.orders"),
        ("Orders", "shop.public.orders"),
        ("public.orders", "shop.public.orders"),
        ("web.clik", "web.clicks"),
        ("visit", "zoo.visits"),
        ("alertes", "alerts"),
        ("ruls", "rules"),
    ],
)
def test_the_topic_that_was_meant_is_one_that_holds_the_name_or_a_similar_one(name, meant):
    assert did_you_mean_topic(name, OURS + SHIPPED + USERS) == f"; did you mean {meant!r}?"


def test_an_unknown_topic_is_said_with_the_users_topics_before_others():
    more = [f"mono.own_{number}" for number in range(15)]
    with pytest.raises(UnknownTopic) as error:
        select_topics(["orders"], OURS + SHIPPED + more + USERS)
    text = str(error.value)
    assert f"the broker has {', '.join(sorted(more) + USERS)}, mono.axon_1, " in text
    assert text.endswith(" and 8 more; did you mean 'shop.public.orders'?")


def test_a_declared_topic_that_the_broker_does_not_have_is_said_with_the_similar_one():
    declared = [
        StreamDeclaration(name="clicks", topic="web.clik"),
        StreamDeclaration(name="orders", topic="shop.public.orders"),
        StreamDeclaration(name="rooms"),
    ]
    topics = ["web.clik", "shop.public.orders", "mono.rooms", "mono.other"]
    (line,) = new_declared_topics(Contracts(declared), topics, OURS + USERS)
    assert line == (
        "topic 'web.clik', which the declaration of stream 'clicks' names, was not on the broker and is created, "
        "empty; did you mean 'web.clicks'?"
    )
