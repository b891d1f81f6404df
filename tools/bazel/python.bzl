"""The host's CPython, as @python.

The locks hold wheels of one Python version, so that version is looked for and no other is taken.
"""

_VERSION = "3.11"

# Prints the version and the real path of the interpreter, behind any shim.
_PROBE = "import pip, sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"

def _python_interpreter_impl(ctx):
    rejected = []
    for name in [ctx.os.environ.get("PYTHON", ""), "python" + _VERSION, "python3", "/usr/bin/python3"]:
        found = name if name.startswith("/") else (ctx.which(name) if name else None)
        if not found:
            continue
        probe = ctx.execute([found, "-c", _PROBE])
        if probe.return_code:
            rejected.append("%s does not start or has no pip" % found)
            continue
        version, executable = probe.stdout.strip().split("\n")
        if version != _VERSION:
            rejected.append("%s is Python %s" % (found, version))
            continue
        ctx.file("BUILD.bazel", "")
        ctx.file("python.bzl", '"""The interpreter that was found."""\n\nPYTHON = %r\n' % executable)
        return
    fail("Python %s with pip is needed: %s. Install it, or set PYTHON=/path/to/python%s." % (
        _VERSION,
        ", ".join(rejected) or "no python3 on PATH",
        _VERSION,
    ))

python_interpreter = repository_rule(
    doc = "Finds the interpreter; load PYTHON, its absolute path, from python.bzl.",
    implementation = _python_interpreter_impl,
    environ = [
        "PATH",
        "PYTHON",
    ],
    configure = True,
    local = True,
)
