"""Lines of text and progress bars on stderr."""

from scoring.terminal.progress import MANY, Console


def test_lines_go_to_stderr_and_a_quiet_console_prints_only_those_for_everyone(capsys):
    console = Console()
    console.say("one")
    console.quiet = True
    console.say("two")
    console.say("three", everyone=True)
    assert capsys.readouterr() == ("", "one\nthree\n")


def test_lines_stand_above_an_open_bar_and_alone_once_it_is_closed(capsys):
    console = Console()
    bar = console.progress(10, 4)
    bar.update(6)
    bar.show(loss="0.5")
    console.say("above")
    bar.close()
    console.say("after")
    text = capsys.readouterr().err
    assert text.index("above") < text.index("after") and not bar.open


def test_items_are_counted_where_there_are_many():
    console, bars = Console(), []
    console.progress = lambda total, unit: bars.append((total, unit)) or Console.progress(console, total, unit=unit)
    assert list(console.count("abc", MANY - 1, "picture")) == ["a", "b", "c"] and not bars
    assert list(console.count("abc", MANY, "picture")) == ["a", "b", "c"] and bars == [(MANY, "picture")]


def test_items_whose_number_is_unknown_are_counted_from_many_on():
    console, bars = Console(), []
    console.progress = lambda total, done=0, unit="": (
        bars.append((total, done)) or Console.progress(console, total, done)
    )
    assert len(list(console.count(range(MANY), None, "picture"))) == MANY and not bars
    assert len(list(console.count(range(MANY + 5), None, "picture"))) == MANY + 5 and bars == [(None, MANY)]
