"""A seccomp filter for untrusted programs: what a confined Python never needs answers EPERM.

A program is one process with threads, so its address space limit bounds its whole memory; the calls
that keep memory outside of the address space are refused too. `socket` is, because not all of its
families know network namespaces (AF_VSOCK, AF_ALG).

The filter is classic BPF (linux/seccomp.h, linux/bpf_common.h), in the form bubblewrap's `--seccomp`
reads. libseccomp would need a system library that `pip install` does not bring.
"""

import errno
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH of linux/audit.h, by `platform.machine()`."""

DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "socket": (41, 198),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
"""Numbers on x86_64 and aarch64, from the kernel's system call tables."""
CLONE = (56, 220)
CLONE3 = 435
CLONE_THREAD = 0x00010000
PRCTL = (157, 167)
PR_SET_PDEATHSIG = 1
"""Refused: a program that takes it back would outlive the bubblewrap that started it."""
FIRST_X32_CALL = 0x40000000

LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET, FIRST_ARGUMENT_OFFSET = 0, 4, 16
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000


def write_filter(machine: str) -> bytes:
    """The program for one of ARCHITECTURES; system calls of any other architecture kill the process."""
    column = list(ARCHITECTURES).index(machine)
    numbers = [pair[column] for pair in DENIED.values()]
    return b"".join(
        [
            instruct(LOAD, ARCHITECTURE_OFFSET),
            instruct(JUMP_EQUAL, ARCHITECTURES[machine], skip_if=1),
            instruct(RETURN, KILL),
            instruct(LOAD, NUMBER_OFFSET),
            refuse(JUMP_GREATER_EQUAL, FIRST_X32_CALL, errno.ENOSYS),
            # Its flags are behind a pointer, which no filter can follow; C libraries then fall back to clone.
            refuse(JUMP_EQUAL, CLONE3, errno.ENOSYS),
            *(refuse(JUMP_EQUAL, number, errno.EPERM) for number in numbers if number is not None),
            instruct(JUMP_EQUAL, PRCTL[column], skip_if_not=4),
            instruct(LOAD, FIRST_ARGUMENT_OFFSET),
            refuse(JUMP_EQUAL, PR_SET_PDEATHSIG, errno.EPERM),
            instruct(RETURN, ALLOW),
            instruct(JUMP_EQUAL, CLONE[column], skip_if=1),
            instruct(RETURN, ALLOW),
            instruct(LOAD, FIRST_ARGUMENT_OFFSET),
            instruct(JUMP_SET, CLONE_THREAD, skip_if=1),
            instruct(RETURN, FAIL | errno.EPERM),
            instruct(RETURN, ALLOW),
        ]
    )


def refuse(comparison: int, number: int, error: int) -> bytes:
    return instruct(comparison, number, skip_if_not=1) + instruct(RETURN, FAIL | error)


def instruct(code: int, value: int, skip_if: int = 0, skip_if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if, skip_if_not, value)
