"""Makes the standard library cooperative. Import it before anything else in a server's main.

What was imported before would keep the blocking primitives. The hub is made here too, so that
everything that follows shares it.
"""

from gevent import get_hub, monkey

monkey.patch_all()
get_hub()
