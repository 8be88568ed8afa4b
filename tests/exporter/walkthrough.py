"""Does what a page of documentation says, step by step, as its reader would.

A page is read from top to bottom. A ``python`` block with a ``title`` is a file: the first time it is
written, later its definitions take the place of those of the same name, new names that are assigned go below
the others, above the functions that use them, and what else is new goes to the end, which is what a reader
makes of "change this function". In a ``console`` block, what follows a ``$`` is run by
a shell, and the lines below are what it prints. A command that serves goes on while the page goes on. A line
that says "Ask ... in the chat" is a message of a user, and one that says "The collector gets the span ..." is
held against what an OpenTelemetry collector has got.

Ports of the page are replaced by free ones on the way in, and put back on the way out.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

_FENCE: Final = re.compile(r"^```(?P<language>\w+)(?: title=\"(?P<title>[\w./-]+)\")?$")
_CHAT: Final = re.compile(
    r'^- Ask "(?P<question>[^"]+)" in the chat'
    r'(: it answers|(?P<stop> and press Stop): so far it has answered) "(?P<answer>[^"]+)"'
)
_SPAN: Final = re.compile(r'^- The collector gets the span "(?P<name>[^"]+)"')
_COMMAND: Final = "$ "
_LATE: Final = ("/metrics", "queries.log")
_VARYING: Final = re.compile(
    r"\b(\d+\.\d{3,}|\d(\.\d+)?e[+-]\d+|[0-9a-f]{16,32})\b"
    r'|(?<="time": )"[^"]+"|(?<="process": )\d+|(?<=_seconds": )[\d.e-]+'
)
_STAMP: Final = re.compile(r"^\[[\d: +-]+\] \[\d+\] ")
_METRIC: Final = re.compile(r"\w+\{.*\} \S+$")
_POLL_SECONDS: Final = 0.1
_SETTLING_SECONDS: Final = 1.0
_SERVERS: Final = re.compile(r"^(\w+=\S+ )*(uvicorn|gunicorn) ")
_SERVER_DEADLINE_SECONDS: Final = 90.0
_OUTPUT_DEADLINE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line of the page that it begins at."""

    language: str
    title: str
    text: str
    line: int


@dataclass(frozen=True)
class Chat:
    """A user's message and the answer that the page promises; its first piece, if the user then stops it."""

    question: str
    answer: str
    stopped: bool
    line: int


@dataclass(frozen=True)
class Span:
    """A span that the page says a collector gets."""

    name: str
    line: int


Step = Block | Chat | Span


@dataclass(frozen=True)
class Shown:
    """A command of the page, what the page says that it prints, and what it printed."""

    line: int
    command: str
    expected: str
    actual: str

    def lasting(self) -> str:
        """What the page should say: what it says now, unless that is wrong."""
        return self.expected if alike(self.expected, self.actual) else self.actual


def steps(page: str, *, section: str) -> list[Step]:
    """What a reader does in one section (a heading of the second level), in the page's order."""
    lines = iter(enumerate(page.splitlines(), start=1))
    found: list[Step] = []
    inside = False
    for number, line in lines:
        fence, chat = _FENCE.match(line), _CHAT.match(line)
        if line.startswith("## "):
            inside = line.removeprefix("## ") == section
        elif line.startswith("```"):
            assert fence, f"line {number}: a block needs a language: {line}"
            text = "\n".join(_until_the_fence(lines)) + "\n"
            if inside:
                found.append(Block(fence["language"], fence["title"] or "", text, number))
        elif inside and chat:
            found.append(Chat(chat["question"], chat["answer"], bool(chat["stop"]), number))
        elif inside and (span := _SPAN.match(line)):
            found.append(Span(span["name"], number))
    assert found, f"there is no section {section!r}, or nothing in it"
    return found


def _until_the_fence(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line
    raise AssertionError("the page ends inside a block")


@dataclass
class Walk:
    """A reader with a folder, a shell and at most one server; a context manager that stops the server.

    Attributes:
        folder: where the reader's files are.
        programs: the folder in which programs are looked for first.
        ports: the page's ports, and what stands for them here.
        chat: sends a user's message to the chat of the service and returns the answer.
        collected: the names of the spans that a collector has got so far.
        patient: whether metrics that are not yet as expected are read again; else there is one late look.
    """

    folder: Path
    programs: Path
    ports: Mapping[str, str]
    chat: Callable[[Chat], str]
    collected: Callable[[], list[str]]
    patient: bool = True
    _server: ManagedProcess | None = field(default=None, init=False)
    _started: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def do(self, step: Step) -> list[Shown]:
        """Do one step; what it shows is returned, for comparison."""
        if isinstance(step, Chat):
            return [Shown(step.line, step.question, step.answer, self.chat(step))]
        if isinstance(step, Span):
            return [Shown(step.line, "spans", step.name, self._collected(step.name))]
        if step.language == "python":
            self._write(step)
            return []
        assert step.language == "console", f"line {step.line}: nothing is known of {step.language!r}"
        return [self._run(step.line, command, expected) for command, expected in _commands(step.text)]

    def _write(self, block: Block) -> None:
        assert block.title, f"line {block.line}: a file needs a title"
        path = self.folder / block.title
        written = self._inside(block.text)
        path.write_text(merged(path.read_text(), written) if path.exists() else written)

    def _collected(self, name: str) -> str:
        """The name, once there is such a span; the names of all others when there is none for long."""
        deadline = time.monotonic() + _OUTPUT_DEADLINE_SECONDS
        while name not in (names := self.collected()):
            if time.monotonic() > deadline:
                return ", ".join(names)
            time.sleep(_POLL_SECONDS)
        return name

    def _run(self, line: int, command: str, expected: str) -> Shown:
        if _SERVERS.match(command):
            actual = self._serve(self._inside(command), self._inside(expected))
        else:
            actual = self._print(self._inside(command))
            deadline = time.monotonic() + _OUTPUT_DEADLINE_SECONDS
            # What a question has changed is there a moment after its answer.
            late = any(part in command for part in _LATE)
            if late and not self.patient:
                time.sleep(_SETTLING_SECONDS)
                actual = self._print(self._inside(command))
            while (
                late
                and self.patient
                and not alike(expected, self._outside(actual))
                and time.monotonic() < deadline
            ):
                time.sleep(_POLL_SECONDS)
                actual = self._print(self._inside(command))
        return Shown(line, command, expected, self._outside(actual))

    def _print(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_OUTPUT_DEADLINE_SECONDS,
            check=False,
        )
        return done.stdout

    def _serve(self, command: str, expected: str) -> str:
        """Start a server, in the place of the one that runs, and wait until it has said what is expected.

        Of what it says, the expected lines are returned: a page may leave out the others.
        """
        self._stop()
        self._started += 1
        log = self.folder / f"server-{self._started}.log"
        wanted = expected.splitlines()

        def said() -> list[str]:
            return said_of(wanted, log.read_text())

        self._server = ManagedProcess(
            command,
            ["bash", "-c", f"cd {self.folder} && {_replacing_the_shell(command)}"],
            log_path=log,
            ready=lambda: said() == wanted,
            environment=self._environment(),
            ready_timeout_seconds=_SERVER_DEADLINE_SECONDS,
        ).start()
        return "\n".join(said()) + "\n"

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _environment(self) -> dict[str, str]:
        path = f"{self.programs}{os.pathsep}{self.folder}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}

    def _inside(self, text: str) -> str:
        for shown, real in self.ports.items():
            text = re.sub(rf"\b{shown}\b", real, text)
        return text

    def _outside(self, text: str) -> str:
        for shown, real in self.ports.items():
            text = re.sub(rf"\b{real}\b", shown, text)
        return text


def merged(file: str, change: str) -> str:
    """The file with what the change defines in the place of what it defined under the same name."""
    kept, changes = _statements(file), _statements(change)
    imports = {name: text for name, text in changes.items() if text.startswith(("import ", "from "))}
    body = {name: text for name, text in changes.items() if name not in imports}
    merged_body = {**kept, **body}
    first = next((name for name, text in merged_body.items() if _is_a_definition(text)), None)
    names = list(merged_body)
    above = names[: names.index(first)] if first else names
    assigned = [
        name for name in names if name not in {*kept, *above} and _is_an_assignment(merged_body[name])
    ]
    rest = [name for name in names if name not in {*above, *assigned}]
    return "\n".join([*imports.values(), *(merged_body[name] for name in (*above, *assigned, *rest))]) + "\n"


def _is_a_definition(text: str) -> bool:
    return isinstance(ast.parse(text).body[0], (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))


def _is_an_assignment(text: str) -> bool:
    return isinstance(ast.parse(text).body[0], (ast.Assign, ast.AnnAssign))


def _statements(source: str) -> dict[str, str]:
    """The statements of a module, by the name that they define; others by their own text."""
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        text = "\n".join(lines[first - 1 : node.end_lineno])
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
        name = getattr(node, "name", None) or (ast.unparse(target) if target is not node else text)
        found[name] = text
    return found


def _commands(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(rf"^{re.escape(_COMMAND)}", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = f"{command}\n{more}"
        yield command, output


def _replacing_the_shell(command: str) -> str:
    """The command with ``exec`` before the program, so that signals reach the server itself."""
    return re.sub(r"^((?:\w+=\S+ )*)", r"\1exec ", command)


def said_of(wanted: list[str], log: str) -> list[str]:
    """Those of the lines that are in a server's log as often as they are wanted."""
    lines = Counter(_unstamped(line) for line in log.splitlines())
    asked = Counter(_unstamped(line) for line in wanted)
    return [line for line in wanted if lines[_unstamped(line)] >= asked[_unstamped(line)]]


def _unstamped(line: str) -> str:
    """A line of a server's log without what gunicorn begins it with: the time and the process."""
    return _STAMP.sub("", line)


def alike(expected: str, actual: str) -> bool:
    """Whether two outputs say the same.

    That is, but for figures that no two runs have in common (durations, ids), and for the order of metrics.
    """
    return _said(expected) == _said(actual)


def _said(output: str) -> tuple[list[str], list[str]]:
    lines = _VARYING.sub("~", output).strip().splitlines()
    metrics = [line for line in lines if _METRIC.match(line)]
    return sorted(metrics), [line for line in lines if line not in metrics]


def rewritten(page: str, done: Iterable[tuple[Block, list[Shown]]]) -> str:
    """The page with what commands really print in the place of what it says that they print."""
    lines = page.splitlines()
    for block, shown in sorted(done, key=lambda one: one[0].line, reverse=True):
        text = "".join(f"{_COMMAND}{one.command}\n{one.lasting()}" for one in shown)
        lines[block.line : block.line + block.text.count("\n")] = text.splitlines()
    return "\n".join(lines) + "\n"
