"""Templates, conversations and random pieces of Jinja for the tests of chat templates. The templates are
ours; each does in its own words what those of a family of models do."""

import random

HELLO = [{"role": "user", "content": "Hello"}]
SYSTEM = {"role": "system", "content": "Answer in one word."}
TURNS = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]

CONVERSATIONS = {
    "one": HELLO,
    "turns": TURNS,
    "system": [SYSTEM, *HELLO],
    "system_turns": [SYSTEM, *TURNS, {"role": "assistant", "content": "So long"}],
    "spaces": [{"role": "user", "content": " \t\n  two  lines \n \n"},
               {"role": "assistant", "content": "\n\nyes\u00a0\u3000"},
               {"role": "user", "content": "\r\nmore\x1c\x85"}],
    "unicode": [{"role": "system", "content": "Grüße, 世界 🌍"},
                {"role": "user", "content": "naïve e\u0301 \u200d 𝒳"}],
    "quotes": [{"role": "user", "content": "it's \"so\" {{ x }} {% if %} \\n \\ <b>&amp;</b>"}],
    "empty": [{"role": "system", "content": ""}, {"role": "user", "content": ""},
              {"role": "assistant", "content": ""}],
    "thoughts": [*HELLO, {"role": "assistant", "content": "<why>\nhm\n</why>\n\nSo."},
                 {"role": "user", "content": "And?"}],
    "nobody": [],
    "wrong_order": [{"role": "assistant", "content": "First"}, *HELLO],
}

TEMPLATES = {
    # Marks around every turn; a system message where there is none.
    "marks": """{% for turn in messages %}{% if loop.first and turn['role'] != 'system' %}{{ '<s>system
Be kind.<e>
' }}{% endif %}{{ '<s>' + turn['role'] + '
' + turn['content'] + '<e>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant
' }}{% endif %}""",
    # The system message inside the first turn, strict order of roles.
    "brackets": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}\
{% set first = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set first = false %}{% endif %}\
{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate, "user" first') }}{% endif %}\
{% if loop.index0 == 0 and first != false %}{% set text = '<<' + first + '>>\\n' + m['content'] %}\
{% else %}{% set text = m['content'] %}{% endif %}\
{% if m['role'] == 'user' %}{{ bos_token + '[Q] ' + text.strip() + ' [/Q]' }}\
{% elif m['role'] == 'assistant' %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    # White space around tags, comments, tools, the date.
    "headers": """
{{- bos_token }}
{%- if not note is defined %}
    {%- set note = "A note" %}
{%- endif %}
{#- the first message
    may be a system message #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{%- if tools is not none or bonus is defined %}
    {{- "Tools: " + bonus | reject('equalto', 'code') | join(", ") + "\\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- "<h>system</h>\\n\\n" + note + ", " + strftime_now("%d %b %Y") + "\\n\\n" + system + "<e>" }}
{%- for m in messages %}
    {%- if not (m.role == 'tool' or 'calls' in m) %}
        {{- '<h>' + m['role'] + '</h>\\n\\n' + m['content'] | trim + '<e>' }}
    {%- elif m.role == "tool" and (m.content is mapping or m.content is iterable) %}
        {{- m.content | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<h>assistant</h>\\n\\n' }}
{%- endif %}
""",
    # Tags on lines of their own: what trim_blocks and lstrip_blocks leave.
    "lines": """{% for m in messages %}
  {% if m['role'] == 'user' %}
  {{ '<|user|>
' + m['content'] + eos_token }}
  {% elif m['role'] == 'system' %}
{{ '<|system|>' }} {{- m.content }}

{% else %}{# nothing #}
	{{ '<|assistant|>' ~ m.content ~ eos_token }}
  {%+ endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}

""",
    # A namespace, a walk backwards, thoughts that are left out.
    "thoughts": """{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and m.role == "user" and m.content is string and not(m.content.startswith('<r>') \
and m.content.endswith('</r>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set thought, content = '', m.content %}
    {%- if '</why>' in content %}
        {%- set thought = content.split('</why>')[0].rstrip('\\n').split('<why>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</why>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
        {{- '<' + m.role + '>' + thought.strip('\\n') + '|' + content }}
    {%- else %}
        {{- '<' ~ m.role ~ '>' ~ content }}
    {%- endif %}
    {%- if m.role == 'assistant' %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<assistant>' }}{%- if think is defined and think is false %}{{- '<why></why>' }}{%- endif %}
{%- endif %}""",
    # Filters over messages, and a set block.
    "filters": """{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- set others = messages | rejectattr("role", "in", ["user", "system"]) | map(attribute="content") %}
{%- set head %}{% for m in messages if m.role == "system" %}{{ m.role|upper }}{{ m.content|default("-", true) }}
{% else %}none{% endfor %}{% endset %}
{{- head }}:{{ others|join(';') }}
{% for m in messages %}
{%- if m.role == 'system' %}{% continue %}{% endif %}
{{- loop.index }}/{{ loop.length }} {{ m == users[-1] }} {{ (loop.previtem or {}).get('role', '-') }}
{%- for key, value in m.items() if key != "role" %} {{ key }}={{ value|tojson }}{% endfor %}
{%- if loop.index > 3 %}{% break %}{% endif %}
{{- '\\n' if not loop.last }}
{%- endfor %}""",
}

# ---- random templates ------------------------------------------------------------------------

VARIABLES = {
    "a": 3, "b": -2, "x": 1.5, "yes": True, "no": False, "nothing": None,
    "s": "Hello, World", "t": "  spaced out\n", "e": "", "u": "naïve 世界",
    "l": [1, 2, 3, 2], "w": ["b", "a", "c"], "m": [], "n": [[1, "x"], [2, "y"]],
    "d": {"role": "user", "content": " Hi ", "n": 2},
    "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
                 {"role": "user", "content": "it's"}],
}
CONSTANTS = ["0", "1", "2", "-1", "7", "2.0", "0.5", "1e3", "true", "False", "none", "'a'", "\"it's\"", "''",
             "'l\\n'", "'\\x41\\u00e9'", "[]", "()", "(1,)", "{}", "[1, 'a', none]", "{'k': 1, 'role': 'x'}",
             "undefined_name", "'Hello'"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and",
          "or"]
FILTERS = ["trim", "length", "count", "upper", "lower", "title", "capitalize", "first", "last", "list",
           "string", "int", "float", "tojson", "reverse|list", "default('z')", "default('z', true)", "d(1)",
           "join", "join('-')", "join(', ', attribute='role')", "replace('l', 'LL')", "replace('l', '', 1)",
           "map(attribute='role')|list", "map('upper')|list", "map('string')|join('|')", "items|list",
           "selectattr('role')|list", "selectattr('role', 'equalto', 'user')|list", "select|list",
           "rejectattr('role', 'eq', 'user')|list|length", "reject('none')|list", "select('in', [1, 'a'])|list",
           "trim('Hd ')", "tojson(indent=2)", "tojson(separators=(',', ':'), sort_keys=true)", "int(5)",
           "float(0.25)", "tojson(ensure_ascii=true)", "map(attribute='n', default=0)|list"]
METHODS = ["strip()", "lstrip()", "rstrip()", "strip('H d')", "upper()", "lower()", "title()", "capitalize()",
           "split()", "split(',')", "split('l', 1)", "split(none, 1)", "startswith('He')", "endswith(('d', 'x'))",
           "replace('l', 'r')", "replace('l', 'r', 1)", "replace('', '-')", "join(w)", "join(['x'])",
           "removeprefix('Hello')", "removesuffix('d')", "count('l')", "items()|list", "keys()|list",
           "values()|list", "get('role')", "get('no', 'z')", "role", "content", "missing", "n", "0", "1",
           "keys", "upper"]
SUBSCRIPTS = ["0", "1", "-1", "9", "'role'", "'n'", "'missing'", "1:", ":-1", "::-1", "::2", "-2:", "5:1:-2",
              ":0", "a", "s", "nothing", "true", "'items'"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean",
         "true", "false", "integer", "float", "odd", "even", "callable", "lower", "upper", "equalto(3)", "eq 'a'",
         "ne 2", "gt(1)", "lessthan 2", "in [1, 'a']", "divisibleby 2", "sameas none", "sameas(true)"]


class Sweep:
    """Random expressions and statements; each call gives the text of one."""

    def __init__(self, draw: random.Random):
        self.draw = draw

    def expression(self, depth: int = 3) -> str:
        pick = self.draw.choice
        if depth == 0 or self.draw.random() < 0.2:
            return pick([*VARIABLES, *CONSTANTS])
        inner = lambda: self.expression(depth - 1)
        kind = self.draw.randrange(12)
        if kind <= 2:
            return f"{inner()} {pick(BINARY)} {inner()}"
        if kind == 3:
            return f"({inner()})"
        if kind <= 5:
            return f"({inner()})|{pick(FILTERS)}"
        if kind == 6:
            return f"({inner()}).{pick(METHODS)}"
        if kind == 7:
            return f"({inner()})[{pick(SUBSCRIPTS)}]"
        if kind == 8:
            return f"{inner()} is {pick(['', 'not '])}{pick(TESTS)}"
        if kind == 9:
            return f"{inner()} if {inner()}" + (f" else {inner()}" if self.draw.random() < 0.7 else "")
        if kind == 10:
            return pick([f"not {inner()}", f"-{inner()}", f"+{inner()}", f"{inner()} < {inner()} <= {inner()}"])
        return pick([f"[{inner()}, {inner()}]", f"{{'k': {inner()}, {pick(['1', 's', 'true', 'none', 'x'])}: 1}}", f"({inner()}, {inner()})",
                     f"range({inner()})|list", f"dict(k={inner()})"])

    def tag(self, content: str) -> str:
        """A statement with random signs and white space around it."""
        pick = self.draw.choice
        space = lambda: pick(["", "", " ", "\n", "  \n ", "\t"])
        return f"{space()}{{%{pick(['', '', '-', '+'])} {content} {pick(['', '', '-', '+'])}%}}{space()}"

    def printed(self) -> str:
        pick = self.draw.choice
        if self.draw.random() < 0.3:
            return pick(["text", " x ", "\n", "{# c #}", " {#- c\n -#}\n", "}", "{ {"])
        return f"{{{{{pick(['', '-'])} {self.expression(2)} {pick(['', '-'])}}}}}"

    def body(self, depth: int, in_loop: bool) -> str:
        return "".join(self.statement(depth - 1, in_loop) for _ in range(self.draw.randint(1, 3)))

    def statement(self, depth: int = 3, in_loop: bool = False) -> str:
        pick = self.draw.choice
        if depth <= 0:
            return self.printed()
        tag, kind = self.tag, self.draw.randrange(9)
        if kind <= 1:
            middle = tag(f"elif {self.expression(1)}") + self.body(depth, in_loop) if pick([0, 1]) else ""
            other = tag("else") + self.body(depth, in_loop) if pick([0, 1]) else ""
            return (tag(f"if {self.expression(2)}") + self.body(depth, in_loop) + middle + other + tag("endif"))
        if kind <= 3:
            items = pick(["l", "w", "m", "messages", "s", "d", "d.items()", "range(3)", "n", "undefined_name"])
            target = pick(["i", "i", "k, v"]) if items in ("n", "d.items()") else pick(["i", "a", "item"])
            condition = f" if {self.expression(1)}" if pick([0, 0, 1]) else ""
            other = tag("else") + self.body(depth, in_loop) if pick([0, 0, 1]) else ""
            loop = pick(["", "{{ loop.index }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.previtem }}",
                         "{{ loop.nextitem is defined }}", "{{ loop.length - loop.revindex0 }}"])
            return (tag(f"for {target} in {items}{condition}") + loop + self.body(depth, True) + other
                    + tag("endfor"))
        if kind <= 5:
            name = pick(["a", "s", "i", "fresh", "fresh", "ns.v", "a, fresh"])
            if name == "ns.v":
                return tag("set ns.v = " + self.expression(1)) + "{{ ns.v }}"
            if name == "a, fresh":
                return tag(f"set a, fresh = {self.expression(1)}, {self.expression(1)}") + "{{ fresh }}"
            return tag(f"set {name} = {self.expression(2)}") + f"{{{{ {name} }}}}"
        if kind == 6:
            return tag("set fresh") + self.body(depth, False) + tag("endset") + "{{ fresh|tojson }}"
        if kind == 7:
            return tag("generation") + self.body(depth, False) + tag("endgeneration")
        if in_loop:
            return tag(f"if {self.expression(1)}") + tag(pick(["break", "continue"])) + tag("endif")
        return tag("raw") + pick(["{{ a }}", " {% b", "\n\n x \n"]) + tag("endraw")

    def template(self) -> str:
        end = self.draw.choice(["", "\n", "\n\n", "\r\n"])
        return ("{% set ns = namespace(v=0) %}" + self.body(3, False)
                + "{{ fresh }}|{{ a }}|{{ i }}|{{ ns.v }}" + end)
