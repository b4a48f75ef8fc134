# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an ext4 file system says of itself, and what a loop device is made of, read without starting a process."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import struct

GROUP = 128 << 20
"""Bytes of a whole group of blocks of 4 KiB. A last group that is not whole may be too small for its own tables and is left out."""
SMALLEST = 2 * GROUP
# Small file systems would get other blocks by themselves, and could then not become large ones. One percent is kept for the account, and so
# for its hubs themselves, which go on when their users have filled the rest.
MKFS = ["mkfs.ext4", "-q", "-F", "-m", "1", "-b", "4096", "-I", "256", "-i", "16384"]
COUNT = ["tune2fs", "-O", "quota,project", "-Q", "prjquota"]
QUOTA = ["-O", "quota,project", "-E", "quotatype=prjquota"]

SUPERBLOCK = 1024
MAGIC = 0xEF53
ERRORS = 0x0002
LARGE = 0x0080
"""The feature 64bit."""
PROJECTS = 0x2000
LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO64 = 232


@dataclasses.dataclass(frozen=True)
class FileSystem:
    """Size in bytes, whether it counts the space of projects, and whether the kernel has met errors in it."""

    size: int
    quota: bool
    errors: bool


def parse(block: bytes) -> FileSystem:
    """The file system whose superblock this is; size 0 where it is none.

    Source: the kernel's documentation, filesystems/ext4/super.
    """
    (low,) = struct.unpack_from("<I", block, 0x04)
    (log_size,) = struct.unpack_from("<I", block, 0x18)
    magic, state = struct.unpack_from("<HH", block, 0x38)
    incompatible, read_only = struct.unpack_from("<II", block, 0x60)
    (high,) = struct.unpack_from("<I", block, 0x150)
    if magic != MAGIC:
        return FileSystem(0, False, False)
    blocks = low | (high << 32 if incompatible & LARGE else 0)
    return FileSystem(blocks << (10 + log_size), bool(read_only & PROJECTS), bool(state & ERRORS))


def read(path: str) -> FileSystem:
    """The file system on a device or in an image; while it is mounted only the device tells the latest."""
    with open(path, "rb") as stream:
        stream.seek(SUPERBLOCK)
        return parse(stream.read(1024).ljust(1024, b"\0"))


def backing_inode(device: str) -> int | None:
    """Number of the inode of the file that a loop device is made of, None where it is no loop device."""
    information = bytearray(LOOP_INFO64)
    try:
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.ioctl(handle, LOOP_GET_STATUS64, information)
    except OSError:
        return None
    finally:
        os.close(handle)
    return int(struct.unpack_from("<Q", information, 8)[0])
