"""`python -m dicomwatchd` is `dicomwatchd`."""

import sys

from dicomwatchd.daemon.process import main

sys.exit(main())
