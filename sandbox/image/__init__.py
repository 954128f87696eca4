"""The platform's own image, made without a container engine and the same to the byte each time.

One description (``runtime.toml``) and two locks (``debian.ARCHITECTURE.lock``, ``requirements/image.lock``)
say what is in it: Debian's packages unpacked without running their scripts, the locked wheels, and the wheel
of ``runtime/``. It is one image and not two: what a drill adds, PostgreSQL's programs, lies in the layer that
changes least and is fetched once a node, while a second image would be a second thing to build, sign, mirror
and patch. There is no Containerfile: a workflow runs the same command as a laptop.
"""
