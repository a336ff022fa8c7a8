"""Runs one untrusted program; the first code that a Python started in the sandbox executes.

It is sent a request, limits itself, reports that it is ready and then plays one of four parts:

    script   the program, with the standard streams
    results  a function of the program, on each list of arguments
    answers  a function of the program, on the arguments that each line of input asks for
    checks   a trusted script whose `candidate` asks the function in another sandbox

An untrusted program never sees an expected output, so whatever it finds in this memory and writes
itself is no more than it could have returned. Built-in modules only: start-up time.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSED, FAILED = "passed", "failed"


def encode(value: object) -> str:
    """One ASCII text for equal JSON values of equal types: 1, 1.0 and True differ, tuples are lists."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return ascii(value)
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return f"[{','.join(map(encode, value))}]"
    if isinstance(value, dict) and kind is dict:
        return f"{{{','.join(sorted(f'{encode(key)}:{encode(item)}' for key, item in value.items()))}}}"
    return f"<{kind.__name__}>"


def pack(value: object) -> str:
    """One ASCII line for a value of built-in types, each part `<type>=<text>;`. Raises TypeError for another type."""
    kind = type(value)
    if isinstance(value, str) and kind is str:
        return f"str={value.encode(errors='surrogatepass').hex()};"
    if isinstance(value, float) and kind is float:
        return f"float={value.hex()};"
    if value is None or kind in (bool, int):
        return f"{kind.__name__}={value};"
    if isinstance(value, dict) and kind is dict:
        return f"dict={len(value)};" + "".join(pack(key) + pack(item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset) and kind in (list, tuple, set, frozenset):
        return f"{kind.__name__}={len(value)};" + "".join(map(pack, value))
    raise TypeError(f"a result is {kind.__name__}; expected a built-in type that holds data")


def unpack(line: str) -> object:
    """The value that `pack` wrote. Raises ValueError, StopIteration or KeyError for any other text."""
    parts = iter(line.split(";"))
    value = unpack_next(parts)
    if list(parts) != [""]:
        raise ValueError("text after a value")
    return value


def unpack_next(parts: "Iterator[str]") -> object:
    kind, _, text = next(parts).partition("=")
    constants = {"NoneType=None": None, "bool=True": True, "bool=False": False}
    if f"{kind}={text}" in constants:
        return constants[f"{kind}={text}"]
    if kind == "str":
        return bytes.fromhex(text).decode(errors="surrogatepass")
    if kind == "float":
        return float.fromhex(text)
    if kind == "int":
        return int(text)
    if kind == "dict":
        return {unpack_next(parts): unpack_next(parts) for _ in range(int(text))}
    containers: dict[str, Callable[[list[object]], object]]
    containers = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return containers[kind]([unpack_next(parts) for _ in range(int(text))])


def main(request: bytes) -> None:
    import marshal

    token, limits, part, source, function, arguments = marshal.loads(request)
    set_limits(limits)
    write_all(1, f"{token}\n")
    if part == "script":
        run_module("__main__", source)
    elif part == "results":
        write_results(token, source, function, arguments)
    elif part == "answers":
        write_answers(source, function)
    else:
        check_candidate(source)


def write_results(token: str, source: str, function: str, arguments: list[list[object]]) -> None:
    """One line for each result where the program's own prints cannot reach; ends at once."""
    import posix

    _, results = hide_streams()
    candidate = find_function(source, function)
    write_all(results, "".join(f"{token} {encode(candidate(*values))}\n" for values in arguments))
    posix._exit(0)


def write_answers(source: str, function: str) -> None:
    """A line with the result for each line with [positional, named] arguments; ends with its input."""
    import posix

    questions, answers = hide_streams()
    candidate = find_function(source, function)
    while line := read_line(questions):
        question = unpack(line)
        assert isinstance(question, list)
        positional, named = question
        write_all(answers, pack(candidate(*positional, **named)) + "\n")
    posix._exit(0)


def check_candidate(script: str) -> None:
    """Waits for a line, runs the script, and tells at last whether it ended without an error."""
    answers, questions = hide_streams()
    read_line(answers)

    def candidate(*positional: object, **named: object) -> object:
        write_all(questions, pack([positional, named]) + "\n")
        return unpack(read_line(answers))

    verdict = FAILED
    try:
        run_module("__main__", script, candidate=candidate)
        verdict = PASSED
    finally:
        write_all(questions, f"{verdict}\n")


def run_module(name: str, source: str, **given: object) -> dict[str, object]:
    """Names of a module that was made from source. Some of the standard library looks modules up by name."""
    import sys

    module = sys.modules[name] = type(sys)(name)
    vars(module).update(given)
    exec(compile(source, "<program>", "exec"), vars(module))
    return vars(module)


def find_function(source: str, name: str) -> "Callable[..., object]":
    function = run_module("program", source)[name]
    assert callable(function)
    return function


def hide_streams() -> tuple[int, int]:
    """(input, output) of this process, at new descriptors; the standard streams lead nowhere."""
    import posix

    kept = posix.dup(0), posix.dup(1)
    nowhere = posix.open("/dev/null", posix.O_RDWR)
    for stream in (0, 1, 2):
        posix.dup2(nowhere, stream)
    return kept


def set_limits(limits: dict[str, int]) -> None:
    """Hard limits, by the names of the `resource` module, unless tighter ones hold; the program cannot raise them."""
    import resource

    for name, value in limits.items():
        kind = getattr(resource, name)
        held = resource.getrlimit(kind)[1]
        value = value if held == resource.RLIM_INFINITY else min(value, held)
        resource.setrlimit(kind, (value, value))


def read_request() -> bytes:
    """A request and the eight bytes with its size before it."""
    return read_exactly(int.from_bytes(read_exactly(8), "big"))


def read_exactly(size: int) -> bytes:
    """Reads from the descriptor, so that nothing of a script's own input is buffered here."""
    import posix

    data = bytearray()
    while len(data) < size:
        chunk = posix.read(0, size - len(data))
        if not chunk:
            raise EOFError(f"request ended after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def read_line(descriptor: int) -> str:
    """The next line without its end, or nothing at the end of input. Nobody writes two lines before an answer."""
    import posix

    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = posix.read(descriptor, 65536)
        if not chunk:
            return ""
        data += chunk
    return data[:-1].decode("ascii")


def write_all(descriptor: int, text: str) -> None:
    import posix

    data = memoryview(text.encode())
    while data:
        data = data[posix.write(descriptor, data) :]


if __name__ == "__main__":
    main(read_request())
