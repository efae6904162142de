"""Command lines: how programs take them apart, and how one is put together that they take apart the same way."""

BLANKS = " \t"


def split(line: str) -> list[str]:
    """The arguments of a command line, as CommandLineToArgvW has them.

    The program's name ends with its quotation mark or the first blank, whatever is in it. In the others 2n backslashes
    before a quotation mark are n, and 2n + 1 make it a plain one; two marks within quoted text are a plain one, and end
    the quoted text, in which newer C runtimes differ. (Microsoft: "Parsing C command-line arguments".)
    """
    if line.startswith('"'):
        name, _, rest = line[1:].partition('"')
    else:
        end = next((place for place, character in enumerate(line) if character <= " "), len(line))
        name, rest = line[:end], line[end:]
    return [name, *_arguments(rest)]


def _arguments(text: str) -> list[str]:
    arguments: list[str] = []
    place, end = 0, len(text)
    while True:
        while place < end and text[place] in BLANKS:
            place += 1
        if place == end:
            return arguments
        made, quoted = [], False
        while place < end and (quoted or text[place] not in BLANKS):
            slashes = place
            while place < end and text[place] == "\\":
                place += 1
            count = place - slashes
            if place < end and text[place] == '"':
                made.append("\\" * (count // 2))
                place += 1
                if count % 2:
                    made.append('"')
                elif quoted and place < end and text[place] == '"':
                    made.append('"')
                    quoted = False
                    place += 1
                else:
                    quoted = not quoted
            else:
                made.append("\\" * count)
                if place < end and (quoted or text[place] not in BLANKS):
                    made.append(text[place])
                    place += 1
        arguments.append("".join(made))


def join(arguments: list[str]) -> str:
    """A command line that `split` takes apart into these. The program's name must have no quotation mark."""
    return " ".join([_name(arguments[0]), *map(quote, arguments[1:])])


def _name(name: str) -> str:
    return f'"{name}"' if not name or any(character <= " " for character in name) else name


def quote(argument: str) -> str:
    """One argument as it must stand in a command line."""
    if argument and not any(character in BLANKS + '\n\v"' for character in argument):
        return argument
    made, slashes = ['"'], 0
    for character in argument:
        if character == "\\":
            slashes += 1
            continue
        made.append("\\" * (2 * slashes + 1 if character == '"' else slashes) + character)
        slashes = 0
    made.append("\\" * (2 * slashes) + '"')
    return "".join(made)
