"""Questions that are made up: by the type of their task, or by the content of their pictures."""

from pathlib import Path

from scoring.inputs.questions import Question


def rows(types):
    return [Question(str(n), n + 1, (Path(f"{n}.png"),), "q", ("x", "y"), "a", name) for n, name in enumerate(types)]


def rows_about(folder, contents, types=None):
    """A row for each content, whose picture is a file of its own name."""
    folder.mkdir(exist_ok=True)
    questions = []
    for number, content in enumerate(contents):
        path = folder / f"{number:04}.png"
        path.write_text(f"picture {content}")
        kind = types[number] if types else "x"
        questions.append(Question(f"id{number}", number + 1, (path,), f"q{number}", ("x", "y"), "a", kind))
    return questions
