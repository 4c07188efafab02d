"""``python -m tests.peers``."""

import sys

from tests.peers.compare import main

sys.exit(main())
