"""The daily look at the certificates: which sites it finds, and what it says about them."""

from __future__ import annotations

import types

import pytest
from programs import load

DAY = 86400


@pytest.fixture(scope="module")
def look() -> types.ModuleType:
    return load("reverse_proxy/files/check_certificates.py")


CONFIGURATION = r"""
# configuration file /etc/nginx/nginx.conf:
user www-data; # server { listen 1 ssl; server_name comment.example.org; }
http {
    log_format main '$remote_addr { "$request" ; }';
    map $http_upgrade $connection { default upgrade; '' close; }
    upstream hubs { server 127.0.0.1:8101; }
# configuration file /etc/nginx/conf.d/ananke.conf:
    server { listen 443 ssl default_server; server_name refused.example.org; ssl_reject_handshake on; }
    server {
        listen 443 ssl http2;
        listen [::]:443 ssl http2;
        server_name hubs.example.org
                    "courses.example.org";
        location / { if ($host) { return 404; } }
    }
    server { listen 80; server_name plain.example.org; }
    server { listen 192.0.2.7:8443 ssl; listen unix:/run/x.sock ssl; server_name *.wiki.example.org ~^r\d+$ _ ""; }
    server { listen [2001:db8::1] ssl; server_name .six.example.org; }
}
"""


def test_sites_that_speak_tls(look: types.ModuleType) -> None:
    assert [(site.name, site.address, site.port) for site in look.sites(CONFIGURATION)] == [
        ("any.wiki.example.org", "192.0.2.7", 8443),
        ("courses.example.org", "127.0.0.1", 443),
        ("courses.example.org", "::1", 443),
        ("hubs.example.org", "127.0.0.1", 443),
        ("hubs.example.org", "::1", 443),
        ("six.example.org", "2001:db8::1", 443),
    ]


@pytest.mark.parametrize(
    ("life", "left", "said"),
    [
        (365, 31, None),
        (365, 29.5, "hubs.example.org: the certificate expires on 2001-10-08, in 29 days"),
        (90, 18.1, None),
        (90, 17.5, "hubs.example.org: the certificate expires on 2001-09-26, in 17 days"),
        (6, 1.3, None),
        (6, 1.1, "hubs.example.org: the certificate expires on 2001-09-10, in 1 days"),
        (90, -1, "hubs.example.org: the certificate has expired on 2001-09-08"),
    ],
)
def test_what_is_said_about_a_certificate(look: types.ModuleType, life: float, left: float, said: str | None) -> None:
    now = 1_000_000_000.0
    site = look.Site("hubs.example.org", "127.0.0.1", 443)
    assert look.problem(site, now + (left - life) * DAY, now + left * DAY, now, 30) == said


def test_a_site_that_does_not_answer(look: types.ModuleType) -> None:
    said = look.look(look.Site("hubs.example.org", "127.0.0.1", 1), 30)
    assert said.startswith("hubs.example.org:1: no certificate is served on port 1 (")
