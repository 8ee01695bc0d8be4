"""The keys of dicomwatchd-web, and how long the certificates last that it shows or goes by. It is another service,
which may be off; here they are looked at by whoever looks at the whole configuration."""

from __future__ import annotations

from collections.abc import Iterator

from dicomwatchd import certificates
from dicomwatchd.config.whole import Config
from dicomwatchd.unit.keyfiles import Found, everybody_may_read

_MAY_READ = "everybody may read {}: chmod 640, owner root, group dicomwatchd-web; then replace it"


def findings(config: Config, now: float) -> Iterator[Found]:
    """As the doctor tells it at ``now``, seconds since the epoch."""
    web = config.web
    if web is None:
        return
    if web.tls is not None:
        if everybody_may_read(web.tls.key_file):
            yield "page", "bad", _MAY_READ.format("its TLS key")
        yield "page: certificate", *certificates.judge_shown(web.tls.certificate_file, now)
    if web.oidc is not None:
        if everybody_may_read(web.oidc.client_secret_file):
            yield "page", "bad", _MAY_READ.format("the secret that the provider of the log-in knows it by")
        if web.oidc.ca_file is not None:
            yield "page: CA of the provider", *certificates.judge_trusted(web.oidc.ca_file, now)
    if web.proxy is not None and web.proxy.secret_file is not None and everybody_may_read(web.proxy.secret_file):
        yield "page", "bad", _MAY_READ.format("the proxy's secret")
