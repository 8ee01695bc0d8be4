"""scripts/bench --sites: what a study costs with one, ten and a hundred sites on one archive."""

from tests.bench.sites.main import main as main
