#!/usr/bin/python3
# Managed by ananke.jupyterhub
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the checks of a machine and mails one report: what was found first, then what happened.

One mail a day, also on quiet days, so that silence means that something is broken.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/ananke/auditing.json")
LYNIS_REPORT = Path("/var/log/lynis-report.dat")
HOURS = 3600
LIMIT = 60_000
"""Characters of one part of the mail."""

QUIET, FINDING, FAILED = "quiet", "FINDING", "FAILED"


@dataclass(frozen=True)
class Part:
    """What one tool has to say."""

    tool: str
    state: str
    summary: str
    text: str = ""


@dataclass(frozen=True)
class Ran:
    """A program that has ended."""

    status: int
    output: str
    errors: str = ""


@dataclass(frozen=True)
class Settings:
    """What the role auditing has written."""

    name: str
    mail_to: list[str]
    tools: list[str]
    suite: str
    lynis_day: str
    debsecan_source: str
    chkrootkit_ignore: list[str]
    day: str = "yesterday"
    """Whose records and journal are told."""


Run = Callable[..., Ran]


def run(*arguments: str) -> Ran:
    """Run a program to its end."""
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", timeout=2 * HOURS, check=False
        )
    except OSError as error:
        return Ran(127, "", f"{arguments[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Ran(124, "", f"{arguments[0]}: did not end within two hours")
    return Ran(done.returncode, done.stdout, done.stderr)


def failed(tool: str, ran: Ran) -> Part:
    """A tool that could not do its work: nobody knows what it would have found."""
    return Part(tool, FAILED, f"could not look (status {ran.status})", f"{ran.output}{ran.errors}")


def aide(run: Run, settings: Settings) -> Part:
    """System files that are not as somebody has accepted them."""
    ran = run("ananke-integrity", "check")
    if ran.status >= 14:
        return failed("aide", ran)
    if ran.status == 0:
        return Part("aide", QUIET, "no system file has changed")
    advice = "If that was you: ananke-integrity accept\n\n"
    return Part("aide", FINDING, "system files have changed since they were accepted", advice + ran.output)


def auditd(run: Run, settings: Settings) -> Part:
    """How often what auditd's rules name has happened."""
    end = "now" if settings.day == "today" else "today"
    ran = run("aureport", "--input-logs", "--key", "--summary", "--start", settings.day, "--end", end)
    counted = re.findall(r"^(\d+)\s+(\S+)$", ran.output, re.MULTILINE)
    if not counted:
        return Part("auditd", QUIET, f"nothing was recorded {settings.day}")
    lines = "".join(f"{number:>8} {key}\n" for number, key in counted)
    return Part("auditd", QUIET, f"records of {settings.day}: ausearch --interpret --key KEY shows them", lines)


def chkrootkit(run: Run, settings: Settings) -> Part:
    """Traces of known rootkits."""
    ran = run("chkrootkit", "-q")
    lines = suspicious(ran.output, settings.chkrootkit_ignore)
    if lines:
        return Part("chkrootkit", FINDING, f"{len(lines)} lines of suspicion", "\n".join(lines) + "\n")
    if ran.status not in (0, 1):
        return failed("chkrootkit", ran)
    return Part("chkrootkit", QUIET, "no traces of rootkits")


KNOWN = (
    # programs that must see every packet to do their work
    r"PACKET SNIFFER\(((/usr/lib/systemd/systemd-networkd|/usr/sbin/(dhclient|dhcpcd|NetworkManager))\[\d+\](, )?)+\)",
    # part of Debian's own packages
    r"^/usr/lib/(python3|ruby|jvm|debug|modules)/\S+$",
    r"^/\S+ \[From Debian package: [a-z0-9.+-]+\]$",
)
HEADING = "WARNING: The following suspicious files and directories were found:"


def suspicious(output: str, ignored: Sequence[str]) -> list[str]:
    """The lines of chkrootkit that are not known as false alarms."""
    lines = [line for line in output.splitlines() if line.strip()]
    # it counts links of folders, which overlay file systems (in containers) do not keep, and says so itself
    skipped = [line for line in lines if re.match(r"chkdirs: WARNING: Skipping unsupported filesystem", line)]
    if skipped and [line for line in lines if line.startswith("chkdirs:")] == skipped:
        lines = [line for line in lines if "chkdirs" not in line]
    harmless = [re.compile(pattern) for pattern in (*KNOWN, *ignored)]
    left = [line for line in lines if not any(pattern.search(line) for pattern in harmless)]
    files = [line for line in left if line.startswith("/")]
    return [line for line in left if line != HEADING or files]


def debsecan(run: Run, settings: Settings) -> Part:
    """Packages with a known hole for which Debian has a new version."""
    source = ["--source", settings.debsecan_source] if settings.debsecan_source else []
    ran = run("debsecan", "--suite", settings.suite, "--only-fixed", "--format", "packages", *source)
    if ran.status:
        return failed("debsecan", ran)
    packages = ran.output.split()
    if not packages:
        return Part("debsecan", QUIET, "no package has a hole that a new version closes")
    advice = "Upgrade them: apt-get update && apt-get upgrade\n\n"
    return Part(
        "debsecan", FINDING, f"{len(packages)} packages have holes that new versions close", advice + ran.output
    )


def debsums(run: Run, settings: Settings) -> Part:
    """Files of packages that are not as Debian has made them."""
    ran = run("debsums", "--changed", "--silent")
    changed = [line for line in (ran.output + ran.errors).splitlines() if line.strip()]
    if changed:
        advice = (
            "`dpkg --search FILE` names the package, `apt-get install --reinstall PACKAGE` brings back its files.\n\n"
        )
        return Part("debsums", FINDING, f"{len(changed)} files of packages differ", advice + "\n".join(changed) + "\n")
    return failed("debsums", ran) if ran.status else Part("debsums", QUIET, "all files of packages are Debian's")


def logwatch(run: Run, settings: Settings) -> Part:
    """What the journal tells of a day."""
    ran = run("logwatch", "--output", "stdout", "--format", "text", "--range", settings.day, "--detail", "low")
    if ran.status:
        return failed("logwatch", ran)
    return Part("logwatch", QUIET, f"the journal of {settings.day}", ran.output)


def lynis(run: Run, settings: Settings) -> Part:
    """How hardened the machine is."""
    ran = run("lynis", "audit", "system", "--cronjob", "--quiet")
    report = LYNIS_REPORT.read_text(errors="replace") if LYNIS_REPORT.exists() else ""
    index = re.findall(r"^hardening_index=(\d+)$", report, re.MULTILINE)
    if not index:
        return failed("lynis", ran)
    warnings = re.findall(r"^warning\[\]=(.+)$", report, re.MULTILINE)
    suggestions = len(re.findall(r"^suggestion\[\]=", report, re.MULTILINE))
    summary = f"hardening index {index[-1]}, {suggestions} suggestions (lynis show details TEST-ID)"
    if warnings:
        return Part("lynis", FINDING, f"{len(warnings)} warnings, {summary}", "\n".join(warnings) + "\n")
    return Part("lynis", QUIET, summary)


def rkhunter(run: Run, settings: Settings) -> Part:
    """Traces of known rootkits, and settings that invite them."""
    ran = run("rkhunter", "--check", "--cronjob", "--report-warnings-only")
    if ran.output.strip():
        advice = "Details are in /var/log/rkhunter.log.\n\n"
        return Part("rkhunter", FINDING, "warnings", advice + ran.output)
    return failed("rkhunter", ran) if ran.status else Part("rkhunter", QUIET, "no warnings")


CHECKS: dict[str, Callable[[Run, Settings], Part]] = {
    "aide": aide,
    "debsums": debsums,
    "rkhunter": rkhunter,
    "chkrootkit": chkrootkit,
    "debsecan": debsecan,
    "lynis": lynis,
    "auditd": auditd,
    "logwatch": logwatch,
}


def chosen(settings: Settings, only: Sequence[str], today: datetime.date) -> list[str]:
    """The checks of a run, in the order of the mail."""
    if only:
        return [tool for tool in CHECKS if tool in only]
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    rested = set() if days[today.weekday()] == settings.lynis_day else {"lynis"}
    return [tool for tool in CHECKS if tool in settings.tools and tool not in rested]


def subject(name: str, parts: Sequence[Part]) -> str:
    """The line that tells whether the mail must be read."""
    found = [part.tool for part in parts if part.state == FINDING]
    broken = [part.tool for part in parts if part.state == FAILED]
    texts = [f"{word}: {', '.join(tools)}" for word, tools in (("findings", found), ("failed", broken)) if tools]
    return f"[{name}] " + ("; ".join(texts) if texts else "all quiet")


def body(parts: Sequence[Part]) -> str:
    """The mail's text: a line for each tool, then what needs more, findings first."""
    table = "".join(f"{part.state:<8} {part.tool:<11} {part.summary}\n" for part in parts)
    rank = {FINDING: 0, FAILED: 1, QUIET: 2}
    texts = []
    for part in sorted(parts, key=lambda part: rank[part.state]):
        if part.text.strip():
            text = part.text.strip("\n")
            if len(text) > LIMIT:
                text = f"{text[:LIMIT]}\n... cut off here: run it on the machine to see the rest"
            texts.append(f"\n{'-' * 20} {part.tool}: {part.summary} {'-' * 20}\n\n{text}\n")
    return table + "".join(texts)


def message(settings: Settings, parts: Sequence[Part]) -> EmailMessage:
    """The mail."""
    # lines as long as SMTP allows, so that plain text stays readable in a mailbox on the machine
    mail = EmailMessage(policy=policy.default.clone(max_line_length=900))
    mail["Subject"] = subject(settings.name, parts)
    mail["From"] = "root"
    mail["To"] = ", ".join(settings.mail_to)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(body(parts))
    return mail


def send(mail: EmailMessage) -> None:
    """Hand a mail to the machine's mail agent."""
    line = ["/usr/sbin/sendmail", "-oi", "-t"]
    try:
        subprocess.run(line, input=mail.as_bytes(), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"ananke-report: the mail could not be sent ({error}): see `journalctl --facility=mail` and `mailq`")


def load(path: Path) -> Settings:
    """The settings."""
    try:
        known: dict[str, Any] = json.loads(path.read_text())
        return Settings(**known)
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"ananke-report: {path}: {error}: apply the role auditing again")


def main(arguments: Sequence[str]) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="ananke-report", description="Check this machine and mail one report.")
    parser.add_argument("--only", action="append", default=[], choices=list(CHECKS), help="this tool; may be repeated")
    parser.add_argument("--findings-only", action="store_true", help="no mail when there is nothing to say")
    parser.add_argument("--print", action="store_true", help="show the report instead of mailing it")
    parser.add_argument("--today", action="store_true", help="tell of today instead of yesterday")
    options = parser.parse_args(arguments)
    settings = load(SETTINGS)
    if options.today:
        settings = replace(settings, day="today")
    parts = []
    for tool in chosen(settings, options.only, datetime.date.today()):
        part = CHECKS[tool](run, settings)
        parts.append(part)
        # the journal has it, too; with its priority, so that logwatch counts it among errors
        level = "" if part.state == QUIET else "<3>"
        print(f"{level if not options.print else ''}{part.state} {tool}: {part.summary}", flush=True)
    if options.print:
        print(f"\n{body(parts)}")
    elif not options.findings_only or any(part.state != QUIET for part in parts):
        send(message(settings, parts))


if __name__ == "__main__":
    main(sys.argv[1:])
