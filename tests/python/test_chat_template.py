"""Chat templates are rendered as `transformers` and jinja2 render them, or refused."""

import json
import os
import subprocess
from datetime import datetime, timezone

import paths
import pytest
from chat_cases import CONVERSATIONS, TEMPLATES, VARIABLES, Sweep
from cli_tools import draw_of_test
from model_files import smollm2

jinja2 = pytest.importorskip("jinja2")
NOW = 1_750_000_000
REFUSED = "expected what wavroute renders of Jinja"
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}


def ours(tasks: list[dict]) -> list[dict]:
    """For each {"template", "variables"}: {"text"} or {"error"}."""
    given = "".join(json.dumps(task | {"time": NOW}) + "\n" for task in tasks)
    done = subprocess.run([paths.program("render_template")], input=given, capture_output=True, text=True,
                          timeout=300, env=os.environ | {"TZ": "UTC"})
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert len(answers) == len(tasks)
    assert [answer for answer in answers if "bug" in answer] == []
    return answers


def environment():
    """jinja2 as `transformers` sets it up."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

        def _run(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                         extensions=[Generation, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = datetime.fromtimestamp(NOW, timezone.utc).strftime
    return made


def theirs(environment, template: str, variables: dict) -> str | None:
    """None where jinja2 stops with an error, whatever it is."""
    try:
        return environment.from_string(template).render(**variables)
    except Exception:  # noqa: BLE001
        return None


def variables_of(messages: list[dict], prompt: bool, **others) -> dict:
    return {"messages": messages, "tools": None, "documents": None,
            "add_generation_prompt": prompt} | TOKENS | others


def assert_same_conversations(templates: dict[str, str]) -> None:
    """Every conversation through every template, in transformers where it is, and in jinja2."""
    cases = [(name, template, chat, prompt) for name, template in templates.items()
             for chat in CONVERSATIONS for prompt in (True, False)]
    answers = ours([{"template": template, "variables": variables_of(CONVERSATIONS[chat], prompt)}
                    for _, template, chat, prompt in cases])
    rendered = 0
    for (name, template, chat, prompt), answer in zip(cases, answers):
        expected = theirs(environment(), template, variables_of(CONVERSATIONS[chat], prompt))
        assert answer.get("text") == expected, (name, chat, prompt, answer)
        assert expected is not None or REFUSED not in answer["error"], (name, chat, answer)
        rendered += expected is not None
    assert rendered > len(cases) / 2


def test_our_templates_are_rendered_as_jinja_renders_them():
    assert_same_conversations(TEMPLATES)


def test_the_environment_is_that_of_transformers():
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    for name, template in TEMPLATES.items():
        if name == "headers":  # has the time of day
            continue
        expected = theirs(environment(), template, variables_of(CONVERSATIONS["thoughts"], True))
        rendered, _ = utilities.render_jinja_template(
            conversations=[CONVERSATIONS["thoughts"]], chat_template=template,
            add_generation_prompt=True, **TOKENS)
        assert rendered == [expected], name


def test_smollm2s_template(tmp_path):
    gguf = pytest.importorskip("gguf")
    field = gguf.GGUFReader(smollm2(tmp_path)).fields["tokenizer.chat_template"]
    assert_same_conversations({"smollm2": bytes(field.parts[field.data[0]]).decode()})


def test_templates_in_a_folder():
    """WAVROUTE_CHAT_TEMPLATES: a folder of templates of any models, *.jinja."""
    folder = os.environ.get("WAVROUTE_CHAT_TEMPLATES")
    if not folder:
        pytest.skip("no WAVROUTE_CHAT_TEMPLATES, a folder of templates (*.jinja)")
    from pathlib import Path

    templates = {path.name: path.read_text() for path in sorted(Path(folder).glob("*.jinja"))}
    assert_same_conversations(templates)


def compare_random(tasks: list[str], most_refused: float) -> None:
    answers = ours([{"template": template, "variables": VARIABLES} for template in tasks])
    made, refused, wrong = environment(), 0, []
    for template, answer in zip(tasks, answers):
        expected = theirs(made, template, VARIABLES)
        if "error" in answer and (expected is None or REFUSED in answer["error"]):
            refused += expected is not None
        elif answer.get("text") != expected:
            wrong.append((template, answer, expected))
    assert wrong == [], f"{len(wrong)} of {len(tasks)}; the shortest: {min(wrong, key=lambda w: len(w[0]))}"
    assert refused < most_refused * len(tasks), f"{refused} of {len(tasks)}"


def test_random_expressions_have_the_values_of_jinja():
    sweep = Sweep(draw_of_test())
    compare_random(["{{ " + sweep.expression() + " }}" for _ in range(6000)], 0.1)


def test_random_statements_print_what_jinja_prints():
    sweep = Sweep(draw_of_test())
    compare_random([sweep.template() for _ in range(3000)], 0.2)
