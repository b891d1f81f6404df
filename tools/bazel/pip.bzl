"""Python wheels from hash-locked requirement files, one external repository a wheel.

    load("//tools/bazel:pip.bzl", "pip_hub")
    pip_hub(name = "pip", cpu = "//:cpu.txt", cuda = "//:cuda.txt")
    load("@pip//:wheels.bzl", "pip_wheels")
    pip_wheels()

@pip//:some_name is then a wheel with all that it needs; `-` and `.` in its name become `_`. A wheel
is fetched by the host's pip when a target first needs it. tools/bazel/lock.py writes the locks and
says what is in a line.

The CPU build of torch ("+cpu") is not on the default package index. Where pip finds none, the wheel
of the CUDA lock is installed in its place, with the CUDA libraries that it needs: it runs on CPUs
just as well, and is some gigabytes larger.
"""

load("@python//:python.bzl", "PYTHON")

def _target_name(distribution):
    return distribution.lower().replace(".", "_").replace("-", "_")

# Imports that packages do not declare: triton's interpreter cannot do without numpy, and torch warns.
_UNDECLARED = {
    "torch": ["numpy"],
    "triton": ["numpy"],
}

def _parse_lock(text):
    """Reads a lock into a dict from target name to struct(requirement, repository, needs)."""
    wheels = {}
    for line in text.split("\n"):
        requirement, _, needs = line.partition(" # needs: ")
        requirement = requirement.strip()
        if not requirement or requirement.startswith("#"):
            continue
        name = _target_name(requirement.partition("==")[0])
        digest = requirement.partition("sha256:")[2]
        wheels[name] = struct(
            requirement = requirement,
            # The digest keeps the two accelerators' builds apart, and makes a new pin a new fetch.
            repository = "pip__%s__%s" % (name, digest[:8]),
            needs = [_target_name(need) for need in needs.split(" ") if need] + _UNDECLARED.get(name, []),
        )
    return wheels

def _closure(wheels, name):
    """Returns the sorted names of a wheel and of all that it needs, directly or not."""
    seen = {name: True}
    frontier = [name]

    # Starlark has no while; no chain of needs is longer than the lock.
    for _ in range(len(wheels)):
        frontier = [need for wheel in frontier for need in wheels[wheel].needs if need not in seen]
        seen.update({need: True for need in frontier})
        if not frontier:
            break
    return sorted(seen)

def _fallback(name, wheel, locks):
    """Returns what to install where a build with a local version (+cpu) cannot be found."""
    if "+" not in wheel.requirement.partition(" ")[0] or name not in locks["cuda"]:
        return []
    extra = [need for need in _closure(locks["cuda"], name) if need == name or need not in locks["cpu"]]
    return [locks["cuda"][need].requirement for need in extra]

_WHEELS_BZL = """\
\"\"\"One repository a locked wheel.\"\"\"

load("@//tools/bazel:pip.bzl", "pip_wheel")

def pip_wheels():
    \"\"\"Declares the wheels of both locks.\"\"\"
"""

_BUILD_HEAD = """\
load("@//tools/bazel:py.bzl", "py_wheels")

package(default_visibility = ["//visibility:public"])
"""

_BUILD_WHEEL = """
py_wheels(
    name = "{name}",
    sites = select(
        {{
{arms}
        }},
        no_match_error = "{name} is not in the lock of this accelerator",
    ),
)
"""

def _pip_hub_impl(ctx):
    locks = {
        "cpu": _parse_lock(ctx.read(ctx.attr.cpu)),
        "cuda": _parse_lock(ctx.read(ctx.attr.cuda)),
    }

    calls = {}
    for wheels in locks.values():
        for name, wheel in wheels.items():
            calls[wheel.repository] = "    pip_wheel(name = %r, requirement = %r, fallback = %r)\n" % (
                wheel.repository,
                wheel.requirement,
                _fallback(name, wheel, locks),
            )
    ctx.file("wheels.bzl", _WHEELS_BZL + "".join([calls[name] for name in sorted(calls)]))

    build = _BUILD_HEAD
    for name in sorted({name: True for wheels in locks.values() for name in wheels}):
        arms = []
        for condition, accelerator in [
            ("@//third_party/python:cuda", "cuda"),
            ("//conditions:default", "cpu"),
        ]:
            wheels = locks[accelerator]
            if name in wheels:
                sites = ["@%s//:site" % wheels[need].repository for need in _closure(wheels, name)]
                arms.append("            %r: %r," % (condition, sites))
        build += _BUILD_WHEEL.format(name = name, arms = "\n".join(arms))
    ctx.file("BUILD.bazel", build)

pip_hub = repository_rule(
    doc = "A py_wheels target for each name in either lock, and the macro that declares their repositories.",
    implementation = _pip_hub_impl,
    attrs = {
        "cpu": attr.label(
            doc = "The lock that is used by default.",
            mandatory = True,
            allow_single_file = True,
        ),
        "cuda": attr.label(
            doc = "The lock that --config=cuda chooses.",
            mandatory = True,
            allow_single_file = True,
        ),
    },
)

def _pip_install(ctx, requirements):
    ctx.file("requirements.txt", "".join([r + "\n" for r in requirements]))
    result = ctx.execute(
        [
            PYTHON,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--no-compile",
            "--target=site",
            "--requirement=requirements.txt",
        ],
        environment = {"PIP_ROOT_USER_ACTION": "ignore"},
        timeout = 1800,
    )
    ctx.delete("requirements.txt")
    return result

def _pip_wheel_impl(ctx):
    result = _pip_install(ctx, [ctx.attr.requirement])
    if result.return_code and ctx.attr.fallback:
        # buildifier: disable=print
        print("pip found no %s; installing %s and %d libraries that it needs instead" % (
            ctx.attr.requirement.partition(" ")[0],
            ctx.attr.fallback[-1].partition(" ")[0],
            len(ctx.attr.fallback) - 1,
        ))
        ctx.delete("site")
        result = _pip_install(ctx, ctx.attr.fallback)
    if result.return_code:
        fail("pip could not install %s:\n%s" % (ctx.attr.requirement, result.stderr))

    # Byte code that is not checked against its source loads faster, and is the same wherever the
    # repository lies. A file that does not compile (some packages ship templates) stays as it is.
    ctx.execute(
        [PYTHON, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", "-s", "site", "site"],
        timeout = 1800,
    )

    # The folder is one label: listing torch's thousands of files would slow every analysis.
    ctx.file("BUILD.bazel", 'exports_files(["site"])\n')

pip_wheel = repository_rule(
    doc = "An installed wheel, as the folder :site.",
    implementation = _pip_wheel_impl,
    attrs = {
        "requirement": attr.string(
            doc = "A line of a lock: name, version and hash.",
            mandatory = True,
        ),
        "fallback": attr.string_list(
            doc = "Lines to install in its place where pip cannot.",
        ),
    },
)
