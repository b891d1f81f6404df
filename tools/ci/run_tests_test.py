import pathlib

import pytest

from tools.ci import run_tests
from tools.ci.run_tests import Counts

_OUTPUT = """\
INFO: Found 4 targets and 3 test targets...
//cortex:events_test                                    (cached) PASSED in 0.3s
//cortex:model_test                                              FAILED in 2 out of 3 in 1.2s
  /logs/model_test/test.log
//serving/engine:batch_test                                     TIMEOUT in 60.0s
//serving/http:app_test                                 FAILED TO BUILD
//serving/http:slow_test                                      NO STATUS
Executed 2 out of 3 tests: 1 test passes and 2 fail locally.
"""

_XML = """\
<testsuites><testsuite tests="4">
<testcase name="a"/>
<testcase name="b"><failure message="no"/></testcase>
<testcase name="c"><error message="no"/></testcase>
<testcase name="d"><skipped/></testcase>
</testsuite></testsuites>
"""


def test_reads_statuses_from_bazels_output() -> None:
    assert run_tests.statuses(_OUTPUT.splitlines()) == {
        "//cortex:events_test": "PASSED",
        "//cortex:model_test": "FAILED",
        "//serving/engine:batch_test": "TIMEOUT",
        "//serving/http:app_test": "FAILED TO BUILD",
        "//serving/http:slow_test": "NO STATUS",
    }


def test_counts_the_cases_of_every_shard(tmp_path: pathlib.Path) -> None:
    for shard in ("shard_1_of_2", "shard_2_of_2"):
        folder = tmp_path / "cortex" / "model_test" / shard
        folder.mkdir(parents=True)
        (folder / "test.xml").write_text(_XML)
    counts = run_tests.count_target("//cortex:model_test", "FAILED", tmp_path)
    assert counts == Counts(passed=2, failed=4)


@pytest.mark.parametrize("status", ["FAILED TO BUILD", "NO STATUS"])
def test_an_old_file_of_a_target_that_did_not_run_is_not_read(
    tmp_path: pathlib.Path, status: str
) -> None:
    (tmp_path / "a_test").mkdir()
    (tmp_path / "a_test" / "test.xml").write_text(_XML)
    assert run_tests.count_target("//:a_test", status, tmp_path) == Counts(failed=1)


def test_a_target_that_was_killed_is_one_failure(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a_test").mkdir()
    (tmp_path / "a_test" / "test.xml").write_text("<testsuites><testcase ")
    assert run_tests.count_target("//:a_test", "TIMEOUT", tmp_path) == Counts(failed=1)
