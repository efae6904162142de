"""Settings for all tests."""

import os

import hypothesis

# No test asserts a time: a busy machine is no mistake. A change is judged by the same examples whenever CI checks it.
hypothesis.settings.register_profile("virtus", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("virtus")
