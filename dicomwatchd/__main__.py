"""`python -m dicomwatchd` is `dicomwatchd`."""

import sys

from dicomwatchd.daemon import main

sys.exit(main())
