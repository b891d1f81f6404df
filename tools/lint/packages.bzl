"""Packages that hold Python. A package that is not named here does not load; see py.bzl."""

LINTED_PACKAGES = [
    "cortex",
    "docs/measured",
    "kernels",
    "tools/bazel",
    "tools/ci",
    "tools/lint",
    "tools/measured",
]
