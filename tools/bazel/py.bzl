"""py_library, py_binary, py_test and pytest_test, in Starlark alone.

Bazel's native Python rules bring a C++ toolchain and a coverage tool that would be downloaded. These
need neither. A wheel is one folder in the runfiles, so a test on torch costs a handful of links.

Imports are absolute from the root of the repository. The first rule of a package also declares its
`py_sources`, which tools/lint checks; tools/lint/packages.bzl has to name the package.
"""

load("@python//:python.bzl", "PYTHON")
load("//tools/lint:packages.bzl", "LINTED_PACKAGES")

PyInfo = provider(
    doc = "Python code and what it needs to run.",
    fields = {
        "sources": "depset of Files: Python files of this repository",
        "sites": "depset of Files: folders of installed wheels, each an import root",
    },
)

def _py_info(ctx, sources):
    deps = [dep[PyInfo] for dep in ctx.attr.deps]
    return PyInfo(
        sources = depset(sources, transitive = [dep.sources for dep in deps]),
        sites = depset(transitive = [dep.sites for dep in deps]),
    )

def _runfiles(ctx, info):
    runfiles = ctx.runfiles(
        files = ctx.files.data,
        transitive_files = depset(transitive = [info.sources, info.sites]),
    )
    for target in ctx.attr.data + ctx.attr.deps:
        runfiles = runfiles.merge(target[DefaultInfo].default_runfiles)
    return runfiles

def _runfiles_path(ctx, file):
    """Returns a file's path below the runfiles folder, as in `cortex/training/train.py`."""
    path = file.short_path
    return path[len("../"):] if path.startswith("../") else ctx.workspace_name + "/" + path

def _shell_quote(text):
    return "'" + text.replace("'", "'\\''") + "'"

def _py_wheels_impl(ctx):
    return [
        DefaultInfo(
            files = depset(ctx.files.sites),
            runfiles = ctx.runfiles(files = ctx.files.sites),
        ),
        PyInfo(sources = depset(), sites = depset(ctx.files.sites)),
    ]

py_wheels = rule(
    doc = "Installed wheels. The @pip repository declares one target a distribution.",
    implementation = _py_wheels_impl,
    attrs = {
        "sites": attr.label_list(
            doc = "Folders that wheels were installed into.",
            allow_files = True,
        ),
    },
)

def _py_library_impl(ctx):
    info = _py_info(ctx, ctx.files.srcs)
    return [
        DefaultInfo(files = depset(ctx.files.srcs), runfiles = _runfiles(ctx, info)),
        info,
    ]

_LIBRARY_ATTRS = {
    "srcs": attr.label_list(
        doc = "Python files.",
        allow_files = [".py"],
    ),
    "deps": attr.label_list(
        doc = "py_library targets and wheels that the files import.",
        providers = [PyInfo],
    ),
    "data": attr.label_list(
        doc = "Files that the code reads when it runs.",
        allow_files = True,
    ),
}

_py_library = rule(
    implementation = _py_library_impl,
    attrs = _LIBRARY_ATTRS,
)

def _py_executable_impl(ctx):
    info = _py_info(ctx, [ctx.file.main] + ctx.files.srcs)
    roots = [ctx.workspace_name] + [_runfiles_path(ctx, site) for site in info.sites.to_list()]
    launcher = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.expand_template(
        template = ctx.file._launcher,
        output = launcher,
        is_executable = True,
        substitutions = {
            "%ENV%": "\n".join([
                "export %s=%s" % (name, _shell_quote(value))
                for name, value in sorted(ctx.attr.env.items())
            ]),
            "%MAIN%": _runfiles_path(ctx, ctx.file.main),
            "%PATH%": ":".join(["$r/" + root for root in roots]),
            "%PYTHON%": PYTHON,
        },
    )
    return [
        DefaultInfo(
            executable = launcher,
            files = depset([launcher]),
            runfiles = _runfiles(ctx, info),
        ),
        info,
    ]

_EXECUTABLE_ATTRS = dict(
    main = attr.label(
        doc = "The file that is run.",
        allow_single_file = [".py"],
        mandatory = True,
    ),
    env = attr.string_dict(
        doc = "Environment variables that the program starts with, taken literally.",
    ),
    _launcher = attr.label(
        default = "//tools/bazel:launcher.sh.tpl",
        allow_single_file = True,
    ),
    **_LIBRARY_ATTRS
)

_py_binary = rule(
    implementation = _py_executable_impl,
    executable = True,
    attrs = _EXECUTABLE_ATTRS,
)

_py_test = rule(
    implementation = _py_executable_impl,
    test = True,
    attrs = _EXECUTABLE_ATTRS,
)

def _declare_sources():
    """Declares the package's py_sources, once."""
    if native.existing_rule("py_sources"):
        return
    package = native.package_name()
    if package not in LINTED_PACKAGES:
        fail("%s is not linted: add it to LINTED_PACKAGES in tools/lint/packages.bzl" % package)
    native.filegroup(
        name = "py_sources",
        srcs = native.glob(["**/*.py"]),
        visibility = ["//tools/lint:__pkg__"],
    )

def py_library(name, srcs, **kwargs):
    """Python files that other targets import.

    Args:
        name: by convention the file's name without `.py`.
        srcs: Python files, by convention one.
        **kwargs: `deps`, `data` and the attributes of every rule.
    """
    _declare_sources()
    _py_library(name = name, srcs = srcs, **kwargs)

def py_binary(name, main, **kwargs):
    """A program. `bazel run` starts it in the folder where the user stands.

    Args:
        name: by convention the main file's name without `.py`.
        main: the file that is run.
        **kwargs: `srcs`, `deps`, `data`, `env` and the attributes of every rule.
    """
    _declare_sources()
    _py_binary(name = name, main = main, **kwargs)

def py_test(name, main, **kwargs):
    """A program that tests: it passes where it exits with 0.

    Args:
        name: by convention ends in `_test`.
        main: the file that is run.
        **kwargs: `srcs`, `deps`, `data`, `env` and the attributes of every test rule.
    """
    _declare_sources()
    _py_test(name = name, main = main, **kwargs)

def pytest_test(name, srcs, deps = [], args = [], **kwargs):
    """Tests that pytest runs, with Bazel's XML, --test_filter and shards.

    Args:
        name: by convention the file's name without `.py`.
        srcs: files of tests, and conftest.py where there is one.
        deps: what the tests import; pytest comes along.
        args: more arguments for pytest.
        **kwargs: `data`, `env` and the attributes of every test rule.
    """
    tests = [src for src in srcs if not src.endswith("conftest.py")]
    py_test(
        name = name,
        srcs = srcs,
        main = "//tools/bazel:pytest_main.py",
        deps = deps + ["@pip//:pytest"],
        args = ["$(rootpath %s)" % test for test in tests] + args,
        **kwargs
    )
