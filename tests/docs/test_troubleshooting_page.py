"""docs/troubleshooting.md: its commands run, and the lines that it explains are printed somewhere."""

from pages import Page, bash
from processes import ROOT

from fairseq_lambda import __version__

PAGE = Page("docs/troubleshooting.md")


def test_the_commands_of_the_page_run(tmp_path):
    (commands,) = PAGE.commands()
    assert __version__ in bash(commands, tmp_path)


def test_messages_that_the_page_explains_are_printed():
    sources = "\n".join(path.read_text() for path in (ROOT / "fairseq_lambda").rglob("*.py"))
    for said in ("using plain torch instead of Triton: ", "documents: ", "resuming from "):
        assert said in PAGE.text.replace("...", "") and f'"{said}' in sources
    assert "using {choice!r} on {device}" in sources and ", not 'triton': " in sources


def test_what_a_learning_rate_costs_is_what_was_measured():
    rows = Page("docs/ablations.md").table("option")
    high, of_lambdas = (
        next(row for row in rows if row[0] == name) for name in ("rotary baseline, `--lr 4e-3`", "`--lr 4e-3`")
    )
    numbers = [100 * (float(row[3]) / float(row[4]) - 1) for row in (high, of_lambdas)]
    assert "by {:.0f} % as a rotary Transformer and by {:.0f} % with lambda layers".format(*numbers) in PAGE.text
