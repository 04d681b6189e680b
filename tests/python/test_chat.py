"""wavroute chat: turns from a pipe and from a terminal, where the template is found, what is reused."""

import fcntl
import json
import os
import pty
import select
import shutil
import subprocess
import termios

import paths
import pytest
from cli_tools import assert_error, assert_ok, write_project

# Texts of the letters that the tokenizer of the project knows; no space ends one.
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
GREEDY = ("--temperature", 0, "-n", 6)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def model(finished, tmp_path):
    """A checkpoint alone, as a folder of a model with a template."""
    folder = shutil.copytree(finished / "checkpoints" / "step_12", tmp_path / "model")
    write_settings(folder, chat_template=TEMPLATE)
    return folder


def write_settings(folder, **settings):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def chat(model, turns: str, *flags: object) -> subprocess.CompletedProcess:
    command = [str(paths.program("wavroute")), "chat", str(model), *map(str, flags)]
    return subprocess.run(command, input=turns, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


def objects(model, turns: str, *flags: object) -> list[dict]:
    return [json.loads(line) for line in assert_ok(chat(model, turns, "--json", *flags)).splitlines()]


def test_show_prompt_prints_what_the_template_makes_of_the_lines(model):
    write_settings(model, bos_token="<s>", eos_token={"content": "</s>"},
                   chat_template="{{ bos_token }}{% for m in messages %}[{{ m.role }}: {{ m.content }}]"
                                 "{% endfor %}{{ eos_token }}{{ add_generation_prompt }}{{ tools is none }}")
    done = chat(model, "Hello\n\nHi\r\nBye\n", "--show-prompt", "--system", "Be kind")
    assert assert_ok(done) == ("<s>[system: Be kind][user: Hello][assistant: Hi][user: Bye]</s>TrueTrue")
    assert assert_ok(chat(model, "a\nb\n", "--show-prompt")) == "<s>[user: a][assistant: b]</s>FalseTrue"


def test_a_template_is_taken_from_where_it_is(model, tmp_path):
    def shown(*flags):
        return assert_ok(chat(model, "x", "--show-prompt", *flags))

    write_settings(model, chat_template=[{"name": "other", "template": "no"},
                                         {"name": "default", "template": "list"}])
    assert shown() == "list"
    (model / "chat_template.jinja").write_text("file")
    assert shown() == "file"
    (tmp_path / "own").write_text("own {{ messages[0].content }}")
    assert shown("--template", tmp_path / "own") == "own x"


def test_a_conversation_is_the_text_of_its_prompts(model, wavroute):
    answers = objects(model, "the cat\na mat\n", *GREEDY)
    assert [answer["role"] for answer in answers] == ["assistant"] * 2
    prompts = ["the cat ", f"the cat {answers[0]['content']} a mat "]
    for prompt, answer in zip(prompts, answers):
        alone = json.loads(assert_ok(wavroute("generate", model, "--prompt", prompt, "--json", *GREEDY)))
        assert (answer["content"], answer["ids"]) == (alone["text"], alone["ids"])
        assert answer["prompt_tokens"] == len(prompt) == alone["prompt_tokens"]
    # The last token of an answer was drawn, not read.
    assert [answer["reused_tokens"] for answer in answers] == [0, len(prompts[0]) + 5]


def test_what_the_template_changes_is_read_again(model):
    write_settings(model, chat_template="{{ messages[-1].content }} {{ messages|length * 'a' }}")
    answers = objects(model, "the cat\nthe mat\n", *GREEDY)
    assert answers[1]["reused_tokens"] == len("the ")


def test_answers_from_a_pipe_have_an_empty_line_between_them(model):
    answers = objects(model, "the cat\na mat\n", *GREEDY)
    done = chat(model, "the cat\na mat\n", *GREEDY)
    assert assert_ok(done) == "\n\n".join(answer["content"] for answer in answers) + "\n"
    assert done.stderr.count("more than the 16 that the model was trained with") == 1
    assert done.stderr.count("cut off after 6 tokens") == 2


def test_an_answer_ends_at_the_end_token(model):
    free = objects(model, "the cat", *GREEDY)[0]
    end = free["ids"][3]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [10**6, end]}))
    ended = objects(model, "the cat", *GREEDY)[0]
    until = free["ids"].index(end)
    assert ended["ids"] == free["ids"][:until + 1]
    assert ended["content"] == free["content"][:until]


def test_wrong_input_is_named(model, finished, tmp_path):
    def refused(*words, turns="x"):
        assert_error(chat(model, turns, *GREEDY), *words)

    assert_error(chat(finished, "x"), "expected a chat template, given none", "--template FILE",
                 "wavroute generate")
    write_settings(model, chat_template="a\n{% include 'x' %}")
    refused("the statement 'include'", "in line 2 of the chat template in " + str(model))
    write_settings(model, chat_template="{{ raise_exception('Speak up') }}")
    refused("expected a conversation that the chat template takes", "'Speak up'")
    write_settings(model, chat_template="")
    refused("expected a chat template, given none")
    write_settings(model, chat_template="{% if false %}a{% endif %}")
    refused("expected a chat template that prints the conversation")
    assert_error(chat(model, "x", "--json", "--show-prompt"), "--json or --show-prompt")
    assert_error(chat(model, "x", "--template", tmp_path / "missing"), "missing")


def test_turns_are_utf_8(model):
    done = subprocess.run([str(paths.program("wavroute")), "chat", str(model)], input=b"\xff\n",
                          capture_output=True, timeout=120)
    assert done.returncode == 2 and b"expected UTF-8, given other bytes, in line 1" in done.stderr


class Terminal:
    """The command on a terminal; what it shows is read up to a text."""

    def __init__(self, *arguments: object):
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [str(paths.program("wavroute")), *map(str, arguments)], stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # Ctrl-C reaches it
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def until(self, text: str) -> str:
        """What was shown before `text`, and it."""
        while text not in self.shown:
            assert select.select([self.ours], [], [], 60)[0], f"no {text!r} behind {self.shown!r}"
            self.shown += os.read(self.ours, 4096).decode()
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def end(self) -> int:
        try:
            while os.read(self.ours, 4096):
                pass
        except OSError:  # the other end is closed
            pass
        os.close(self.ours)
        return self.process.wait(timeout=60)


def test_a_terminal_shows_where_to_type_and_ctrl_c_ends_an_answer(model):
    terminal = Terminal("chat", model, "--temperature", 0, "-n", 100000)
    assert "Ctrl-C ends an answer" in terminal.until("> ")
    terminal.type("the cat\n")
    terminal.until("the cat\r\n")
    terminal.until("a")  # something of the answer
    terminal.type("\x03")
    terminal.until("\n> ")
    terminal.type("/reset\n")
    terminal.until("/reset\r\n> ")
    terminal.type("/exit\n")
    assert terminal.end() == 0


def test_ctrl_d_leaves(model):
    terminal = Terminal("chat", model)
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.end() == 0
