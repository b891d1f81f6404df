import os
import pathlib
import subprocess
import sys

import pytest

from tools.bazel import pytest_main

_TESTS = """
import pytest

@pytest.mark.parametrize("number", range(5))
def test_number(number, tmp_path):
    assert number < 4
"""


@pytest.fixture
def tests(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "number_test.py"
    path.write_text(_TESTS)
    return path


def _run(tests: pathlib.Path, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, pytest_main.__file__, str(tests)],
        env={**inherited, **environ},
        cwd=tests.parent,
        capture_output=True,
        text=True,
    )


def test_a_failing_test_fails_and_writes_xml(tests: pathlib.Path) -> None:
    xml = tests.with_name("test.xml")
    result = _run(tests, XML_OUTPUT_FILE=str(xml), TEST_TMPDIR=str(tests.parent))
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert 'failures="1"' in xml.read_text()
    assert 'tests="5"' in xml.read_text()


def test_a_filter_selects_tests(tests: pathlib.Path) -> None:
    result = _run(tests, TESTBRIDGE_TEST_ONLY="2 or 3")
    assert result.returncode == 0
    assert "2 passed, 3 deselected" in result.stdout


def test_a_filter_may_leave_nothing(tests: pathlib.Path) -> None:
    assert _run(tests, TESTBRIDGE_TEST_ONLY="other").returncode == 0


def test_an_empty_file_fails(tests: pathlib.Path) -> None:
    tests.write_text("")
    assert _run(tests).returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_shards_divide_the_tests(tests: pathlib.Path) -> None:
    status = tests.with_name("status")
    environ = {"TEST_TOTAL_SHARDS": "2", "TEST_SHARD_STATUS_FILE": str(status)}
    first = _run(tests, TEST_SHARD_INDEX="0", **environ)
    second = _run(tests, TEST_SHARD_INDEX="1", **environ)
    assert "1 failed, 2 passed, 2 deselected" in first.stdout
    assert "2 passed, 3 deselected" in second.stdout
    assert status.exists()
