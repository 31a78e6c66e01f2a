"""What all tests share."""

from hypothesis import settings

# Examples may be slow while other tests run beside them.
settings.register_profile("keeprate", deadline=None)
settings.load_profile("keeprate")
