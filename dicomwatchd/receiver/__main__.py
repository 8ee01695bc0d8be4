"""`python -m dicomwatchd.receiver` is `dicomwatchd-receive`."""

import sys

from dicomwatchd.receiver.process import main

sys.exit(main())
