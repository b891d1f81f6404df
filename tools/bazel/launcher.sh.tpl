#!/bin/sh
# Starts one Python program with its own sources and wheels, and nothing else of the host's.
set -eu

if [ -n "${RUNFILES_DIR:-}" ]; then
  r=$RUNFILES_DIR
elif [ -d "$0.runfiles" ]; then
  r=$0.runfiles
else
  self=$(readlink -f "$0")
  r=$self.runfiles
fi
case $r in
  /*) ;;
  *) r=$PWD/$r ;;
esac
export RUNFILES_DIR="$r"
%ENV%
export PYTHONPATH="%PATH%"
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1

# Under `bazel run`, relative paths on the command line are the user's. A test stays where Bazel
# starts it, whose arguments name runfiles.
if [ -n "${BUILD_WORKING_DIRECTORY:-}" ] && [ -z "${TEST_SRCDIR:-}" ]; then
  cd "$BUILD_WORKING_DIRECTORY"
fi
exec "%PYTHON%" "$r/%MAIN%" "$@"
