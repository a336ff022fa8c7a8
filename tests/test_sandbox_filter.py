"""The filter as the kernel would read it, on architectures that this machine is not."""

import errno
import struct

import pytest

from stages.sandbox_filter import ALLOW, ARCHITECTURES, CLONE, CLONE_THREAD, DENIED, FAIL, KILL, PRCTL, write_filter

READ, EXIT = {"x86_64": 0, "aarch64": 63}, {"x86_64": 60, "aarch64": 93}


def answer(program: bytes, architecture: int, number: int, flags: int = 0) -> int:
    """What the program returns for a system call; its first argument is `flags`."""
    call = struct.pack("=IIQQ", number, architecture, 0, flags)
    instructions = list(struct.iter_unpack("=HBBI", program))
    held, position = 0, 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x06:
            return value
        if code == 0x20:
            held = struct.unpack_from("=I", call, value)[0]
        else:
            true = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            position += if_true if true else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_named_calls_are_refused_and_others_are_not(machine: str) -> None:
    program, architecture = write_filter(machine), ARCHITECTURES[machine]
    column = list(ARCHITECTURES).index(machine)
    numbers = {name: pair[column] for name, pair in DENIED.items() if pair[column] is not None}
    assert {
        name for name, number in numbers.items() if answer(program, architecture, number) == FAIL | errno.EPERM
    } == {*numbers}
    assert answer(program, architecture, READ[machine]) == answer(program, architecture, EXIT[machine]) == ALLOW


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_threads_may_start_and_processes_may_not(machine: str) -> None:
    program, architecture = write_filter(machine), ARCHITECTURES[machine]
    clone = CLONE[list(ARCHITECTURES).index(machine)]
    assert answer(program, architecture, clone, CLONE_THREAD | 0x100) == ALLOW
    assert answer(program, architecture, clone, 0x10000000 | 17) == FAIL | errno.EPERM
    assert answer(program, architecture, 435) == FAIL | errno.ENOSYS


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_end_of_the_parent_cannot_be_survived(machine: str) -> None:
    program, architecture = write_filter(machine), ARCHITECTURES[machine]
    prctl = PRCTL[list(ARCHITECTURES).index(machine)]
    assert answer(program, architecture, prctl, 1) == FAIL | errno.EPERM
    assert answer(program, architecture, prctl, 15) == ALLOW


def test_other_call_tables_are_closed() -> None:
    program = write_filter("x86_64")
    assert answer(program, 0x40000003, 1) == KILL, "32-bit calls have other numbers"
    assert answer(program, ARCHITECTURES["x86_64"], 0x40000000 | 101) == FAIL | errno.ENOSYS
