"""Runs one untrusted program; its text is what the sandbox starts as `python -I -S -c`.

It reads a marshalled request from standard input, limits itself, reports that it is ready and
runs the program, either as a script or by calling one of its functions on each list of
arguments. It never sees an expected output. It imports built-in modules only: start-up time.
"""


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


def main() -> None:
    import marshal

    size = int.from_bytes(read_exactly(8), "big")
    token, limits, source, function, arguments = marshal.loads(read_exactly(size))
    set_limits(limits)
    write_all(1, f"{token}\n")
    if function:
        call_function(token, source, function, arguments)
    else:
        exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})


def call_function(token: str, source: str, function: str, arguments: list[list[object]]) -> None:
    """Writes one line for each result where the program's own prints cannot reach, and ends at once."""
    import posix

    results = posix.dup(1)
    nowhere = posix.open("/dev/null", posix.O_RDWR)
    for stream in (0, 1, 2):
        posix.dup2(nowhere, stream)
    namespace: dict[str, object] = {"__name__": "program"}
    exec(compile(source, "<program>", "exec"), namespace)
    candidate = namespace[function]
    assert callable(candidate)
    write_all(results, "".join(f"{token} {encode(candidate(*values))}\n" for values in arguments))
    posix._exit(0)


def set_limits(limits: dict[str, int]) -> None:
    """Hard limits, by the names of the `resource` module; the program cannot raise them again."""
    import resource

    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def read_exactly(size: int) -> bytes:
    """Reads from the descriptor, so that nothing of a script's own input is buffered here."""
    import posix

    data = b""
    while len(data) < size:
        chunk = posix.read(0, size - len(data))
        if not chunk:
            raise EOFError(f"request ended after {len(data)} of {size} bytes")
        data += chunk
    return data


def write_all(descriptor: int, text: str) -> None:
    import posix

    data = text.encode()
    while data:
        data = data[posix.write(descriptor, data) :]


if __name__ == "__main__":
    main()
