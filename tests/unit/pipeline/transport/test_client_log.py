"""When a broker counts as unavailable."""

from astrocyte.pipeline.transport.client_log import Silence


def test_a_new_group_has_more_time_to_find_its_coordinator_than_one_that_had_it():
    silence = Silence(15.0, 2.0)
    assert not any(silence.is_long(100.0 + at, found=False) for at in range(15))
    assert silence.is_long(115.5, found=False)
    assert not silence.is_long(116.0, found=True)
    assert [silence.is_long(at, found=False) for at in (117.0, 118.5, 119.5)] == [False, False, True]


def test_the_time_in_which_a_busy_process_did_not_look_is_no_silence():
    silence = Silence(15.0, 2.0)
    assert not silence.is_long(100.0, found=True)
    assert not silence.is_long(160.0, found=False)
    assert not silence.is_long(161.0, found=False)
    assert silence.is_long(162.5, found=False)
