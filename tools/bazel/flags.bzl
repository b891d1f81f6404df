"""Build settings that take one of a few values."""

def _string_flag_impl(ctx):
    if ctx.build_setting_value not in ctx.attr.values:
        fail("%s: %r is not one of %s" % (ctx.label, ctx.build_setting_value, ctx.attr.values))
    return []

string_flag = rule(
    doc = "A command-line flag, `--//package:name=value`, that a config_setting can match.",
    implementation = _string_flag_impl,
    build_setting = config.string(flag = True),
    attrs = {
        "values": attr.string_list(doc = "The values accepted."),
    },
)
