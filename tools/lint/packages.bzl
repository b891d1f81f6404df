"""Packages that hold Python. A package that is not named here does not load; see py.bzl."""

LINTED_PACKAGES = [
    "cortex",
    "cortex/data",
    "docs/measured",
    "kernels",
    "serving",
    "serving/client",
    "serving/engine",
    "serving/http",
    "serving/replay",
    "serving/telemetry",
    "tools/bazel",
    "tools/ci",
    "tools/lint",
    "tools/measured",
    "training",
]
