"""For all tests: what is generated is the same in each run of CI, so that it tells of changes.

Elsewhere every run draws anew, and finds what the others have not.
"""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
