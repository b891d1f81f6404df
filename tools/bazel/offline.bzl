"""Stand-ins for archives that Bazel would download and this project does not use.

Every test rule depends on @remote_coverage_tools, whether or not coverage is collected. The rules
here are Starlark without a toolchain, so nothing else that Bazel declares by itself (rules_cc,
rules_java, the JDKs) is ever asked for.
"""

_BUILD = """\
package(default_visibility = ["//visibility:public"])

filegroup(
    name = "lcov_merger",
    srcs = ["no_coverage.sh"],
)

filegroup(
    name = "coverage_report_generator",
    srcs = ["no_coverage.sh"],
)
"""

def _no_coverage_tools_impl(ctx):
    ctx.file("no_coverage.sh", "#!/bin/sh\nexit 0\n", executable = True)
    ctx.file("BUILD.bazel", _BUILD)

_no_coverage_tools = repository_rule(
    doc = "A coverage merger that does nothing.",
    implementation = _no_coverage_tools_impl,
)

def offline_stubs():
    """Declares the stand-ins. Called in WORKSPACE before anything else."""
    _no_coverage_tools(name = "remote_coverage_tools")
