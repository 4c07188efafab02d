"""The fuzzer itself: whatever ends a process of it is a finding with its input, and the search goes on."""

import pytest

from tests.fuzz.run import fuzz

FAULTS = "tests.support.fuzz_faults"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("raise", "raised KeyError: b'raise"),
        ("segfault", "ended by SIGSEGV"),
        ("hang", "hangs"),
        ("grow", "takes too much memory"),
    ],
)
def test_what_ends_a_process_is_a_finding_with_its_input(fault, kind, tmp_path):
    found = fuzz(fault, seconds=60, seed=1, engine="mutators", work=tmp_path, module=FAULTS, same=2)
    assert len(found.findings) == 2, "it went on after the first, and gave up at the second of one place"
    assert found.inputs >= 2
    first = found.findings[0]
    assert first.kind.startswith(kind)
    assert first.path.read_bytes().startswith(fault.encode())
    assert first.path.with_suffix(".txt").read_text().startswith(kind)


def test_errors_that_are_allowed_are_counted_as_inputs(tmp_path):
    found = fuzz("refuse", seconds=1, seed=1, engine="mutators", work=tmp_path, module=FAULTS)
    assert not found.findings
    assert found.inputs > 100
