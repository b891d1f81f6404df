import os
import pathlib
import subprocess

_WHERE = pathlib.Path(__file__).with_name("where")


def _run(tmp_path: pathlib.Path, **environ: str) -> list[str]:
    # As `bazel run` does, and unlike a test: no TEST_SRCDIR.
    result = subprocess.run(
        [os.path.abspath(_WHERE), "--session=a b"],
        env={"RUNFILES_DIR": os.environ["RUNFILES_DIR"], **environ},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.splitlines()


def test_starts_in_the_folder_of_the_user(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "user's"
    folder.mkdir()
    assert _run(tmp_path, BUILD_WORKING_DIRECTORY=str(folder)) == [str(folder), "--session=a b"]


def test_stays_where_it_is_without_bazel_run(tmp_path: pathlib.Path) -> None:
    assert _run(tmp_path)[0] == str(tmp_path)


def test_a_test_stays_in_its_runfiles(tmp_path: pathlib.Path) -> None:
    here = _run(tmp_path, BUILD_WORKING_DIRECTORY="/", TEST_SRCDIR="/")[0]
    assert here == str(tmp_path)
