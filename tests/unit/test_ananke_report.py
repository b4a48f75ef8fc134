# SPDX-License-Identifier: GPL-3.0-or-later
"""What the nightly report makes of what its tools say."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from programs import load

SUNDAY, MONDAY = datetime.date(2026, 11, 22), datetime.date(2026, 11, 23)


report = load("auditing/files/ananke_report.py")


def settings(**changed: object) -> object:
    values = {
        "name": "machine1",
        "mail_to": ["a@example.org", "b@example.org"],
        "tools": sorted(report.CHECKS),
        "suite": "trixie",
        "lynis_day": "Sun",
        "debsecan_source": "",
        "chkrootkit_ignore": [],
    }
    return report.Settings(**{**values, **changed})


def ran(status: int = 0, output: str = "", errors: str = "") -> Callable[..., object]:
    return lambda *arguments: report.Ran(status, output, errors)


@pytest.mark.parametrize(
    ("tool", "program", "state"),
    [
        ("aide", ran(0), "quiet"),
        ("aide", ran(4, "f > /etc/hosts"), "FINDING"),
        ("aide", ran(17, "", "bad configuration"), "FAILED"),
        ("aide", ran(20, "", "no database yet"), "FAILED"),
        ("aide", ran(127, "", "ananke-integrity: No such file"), "FAILED"),
        ("chkrootkit", ran(0, "\n"), "quiet"),
        ("chkrootkit", ran(0, "INFECTED: ls\n"), "FINDING"),
        ("chkrootkit", ran(127, "", "no such program"), "FAILED"),
        ("debsecan", ran(0), "quiet"),
        ("debsecan", ran(0, "openssl\n"), "FINDING"),
        ("debsecan", ran(1, "", "error: while downloading"), "FAILED"),
        ("debsums", ran(0), "quiet"),
        ("debsums", ran(2, "/usr/bin/ls\n"), "FINDING"),
        ("debsums", ran(2, "", "debsums: missing file /usr/bin/ls\n"), "FINDING"),
        ("debsums", ran(127), "FAILED"),
        ("logwatch", ran(0, "text"), "quiet"),
        ("logwatch", ran(2, "", "broken"), "FAILED"),
        ("rkhunter", ran(0), "quiet"),
        ("rkhunter", ran(1, "Warning: x\n"), "FINDING"),
        ("rkhunter", ran(1, "", "invalid option"), "FAILED"),
        ("auditd", ran(0, "Key Summary Report\n===\ntotal  key\n===\n12  identity\n3  root\n"), "quiet"),
    ],
)
def test_states(tool: str, program: Callable[..., object], state: str) -> None:
    part = report.CHECKS[tool](program, settings())
    assert (part.tool, part.state) == (tool, state)
    if state == "FAILED":
        assert str(program().status) in part.summary
        assert program().errors in part.text


def test_what_a_failed_tool_said_is_in_the_mail() -> None:
    part = report.debsecan(ran(1, "", "error: while downloading"), settings())
    assert "error: while downloading" in report.body([part])
    assert report.subject("machine1", [part]) == "[machine1] failed: debsecan"


def test_records_of_auditd_are_counted() -> None:
    assert "12 identity" in report.auditd(ran(0, "total  key\n12  identity\n"), settings()).text


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "WARNING: chkdirs: Possible LKM Trojan installed (or chkdirs failed):\nchkdirs: WARNING: Skipping unsupported filesystem (overlayfs): /lib/\n",
            0,
        ),
        (
            "WARNING: chkdirs: Possible LKM Trojan installed (or chkdirs failed):\nchkdirs: WARNING: Skipping unsupported filesystem (overlayfs): /lib/\n"
            "chkdirs: 2 directories more than links in /usr\n",
            3,
        ),
        ("WARNING: chkdirs: Possible LKM Trojan installed (or chkdirs failed):\n", 1),
        ("ens3: PACKET SNIFFER(/usr/lib/systemd/systemd-networkd[321])\n", 0),
        ("ens3: PACKET SNIFFER(/usr/lib/systemd/systemd-networkd[321], /tmp/sniff[1])\n", 1),
        ("/usr/lib/debug/.build-id\n", 0),
        ("/usr/lib/.hidden\nmine\n", 1),
        (f"{report.HEADING}\n/usr/lib/python3/x/.htaccess [From Debian package: fail2ban]\n", 0),
        (f"{report.HEADING}\n/usr/lib/python3/x/.htaccess [From Debian package: fail2ban]\n/usr/lib/.fx\n", 2),
    ],
)
def test_false_alarms_of_chkrootkit(output: str, expected: int) -> None:
    assert len(report.suspicious(output, ["^mine$"])) == expected


def test_lynis_runs_once_a_week_unless_asked() -> None:
    assert "lynis" in report.chosen(settings(), [], SUNDAY)
    assert "lynis" not in report.chosen(settings(), [], MONDAY)
    assert report.chosen(settings(), ["lynis"], MONDAY) == ["lynis"]
    assert report.chosen(settings(tools=["aide", "acct"]), [], MONDAY) == ["aide"]


def test_lynis_without_a_report_has_failed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.dat"  # type: ignore[operator]
    monkeypatch.setattr(report, "LYNIS_REPORT", path)
    assert report.lynis(ran(0), settings()).state == "FAILED"
    path.write_text("suggestion[]=A\nsuggestion[]=B\nhardening_index=84\n")
    assert report.lynis(ran(0), settings()).summary.startswith("hardening index 84, 2 suggestions")
    path.write_text("warning[]=W\nhardening_index=84\n")
    assert report.lynis(ran(0), settings()).state == "FINDING"


def test_the_mail_says_first_what_must_be_read() -> None:
    parts = [
        report.Part("aide", "quiet", "nothing"),
        report.Part("debsums", "FINDING", "1 file", "/usr/bin/ls\n"),
        report.Part("logwatch", "quiet", "the journal", "ä lot\n" + "x" * 70_000),
    ]
    mail = report.message(settings(), parts)
    assert mail["Subject"] == "[machine1] findings: debsums"
    assert mail["To"] == "a@example.org, b@example.org"
    text = mail.get_content()
    assert text.index("FINDING  debsums") < text.index("/usr/bin/ls") < text.index("ä lot")
    assert "cut off here" in text
    assert max(map(len, mail.as_bytes().splitlines())) < 998  # what SMTP allows


def test_a_quiet_day() -> None:
    assert report.subject("m", [report.Part("aide", "quiet", "nothing")]) == "[m] all quiet"


def test_a_program_that_is_missing_or_fails_is_no_crash() -> None:
    assert report.run("/nonexistent/program").status == 127
    assert report.run("sh", "-c", "printf '\\377'; exit 3").status == 3
