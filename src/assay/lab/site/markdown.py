"""The text of a page: Markdown to HTML, `$...$` to MathML, code to coloured spans. Raw HTML is shown, not run."""

import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import cache

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_by_name
from pygments.util import ClassNotFound

_MINUS = re.compile(r"(?<![\w.-])-(?=\.?\d)")  # of a negative number, not of a range


def page(text: str) -> Markup:
    """`text` as HTML for a section of a page: its headings start at h3, a first line that is the title is left out."""
    tokens = _parser().parse(text.strip())
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        tokens = tokens[3:]
    levels = [int(token.tag[1]) for token in tokens if token.type == "heading_open"]
    shift = 3 - min(levels, default=3)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + shift)}"
    return Markup(_parser().renderer.render(tokens, _parser().options, {}))


def inline(text: str) -> Markup:
    """One line of text (a statement, a figure of the paper): code, emphasis and math, no blocks."""
    tokens = _parser().parseInline(" ".join(text.split()), {})
    for token in tokens[0].children or ():
        if token.type == "text":
            token.content = _MINUS.sub("−", token.content)
    return Markup(_parser().renderer.render(tokens, _parser().options, {}))


def code(text: str, language: str = "python") -> Markup:
    """`text` as a coloured code block."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = TextLexer()
    body = highlight(text.strip("\n"), lexer, HtmlFormatter(nowrap=True)).rstrip("\n")
    return Markup(f'<pre class="code" tabindex="0"><code>{body}</code></pre>')


def math(tex: str, block: bool = False) -> Markup:
    """`tex` as MathML that browsers draw like TeX.

    Raises:
        ValueError: the formula uses something that has no MathML here.
    """
    return Markup(_math(tex, block))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "typographer": True})
    parser.enable("table").enable("strikethrough").enable("smartquotes")
    dollarmath_plugin(
        parser,
        allow_space=True,
        allow_digits=False,  # 5$ and 10$ are prices
        double_inline=True,
        renderer=lambda tex, options: _math(tex, bool(options["display_mode"])),
    )
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>')
    parser.add_render_rule("table_close", lambda *_: "</table></div>")
    parser.add_render_rule("math_block", _formula)
    parser.add_render_rule("math_inline_double", _formula)
    parser.add_render_rule("math_inline", lambda self, tokens, i, *_: _math(tokens[i].content, False))
    return parser


def _fence(self: object, tokens: Sequence[Token], i: int, *_: object) -> str:
    words = tokens[i].info.split()
    content = tokens[i].content
    python = not words and content.lstrip().startswith((">>>", "from ", "import "))
    return str(
        code(
            content,
            words[0] if words else "pycon" if python and ">>>" in content else "python" if python else "text",
        )
    )


def _formula(self: object, tokens: Sequence[Token], i: int, *_: object) -> str:
    return f'<div class="formula" tabindex="0">{_math(tokens[i].content, True)}</div>'


# -- formulas ------------------------------------------------------------------------------------------------------

# What the converter lacks, in terms of what it has.
_REWRITES = (
    (re.compile(r"\\(begin|end)\{(?:aligned|split|gathered|align|equation)\}"), r"\\\1{align*}"),
    (re.compile(r"\\arg\s*\\?(max|min)(?![a-zA-Z])"), r"\\operatorname*{arg\1}"),
    (re.compile(r"\\arg(?![a-zA-Z])"), r"\\operatorname{arg}"),
    (re.compile(r"\\mathrm\{(\w)\}"), r"\\operatorname{\1}"),
    (re.compile(r"\\(?:mathrm|operatorname)\{([A-Za-z]*\d\w*)\}"), r"\\text{\1}"),
    (re.compile(r"\\not\s*="), r"\\neq "),
    (re.compile(r"\\not\s*\\in(?![a-zA-Z])"), r"\\notin "),
    (re.compile(r"\\(?:mathrm|text|textrm|operatorname)\{([A-Za-z]+)-([A-Za-z]+)\}"), r"\\text{\1-\2}"),
)
_TEXT = re.compile(r"\\text(?:rm|tt|bf|it)?\{[^{}]*\}")
# Signs that it calls identifiers, which would be set in italics and without space around them.
_OPERATORS = {"~": "∼", "⟂": "⟂", "±": "±", "∓": "∓", "⟺": "⟺", "⟹": "⟹", "≔": "≔", "⇔": "⇔"}
_FENCES = "⌊⌋⌈⌉⟨⟩|‖"
_ACCENTS = "~‾¯→˙¨˘^ˇ―"
_LIMITS = {"max", "min", "lim", "sup", "inf", "argmax", "argmin", "Pr", *"∑∏⋃⋂⨁⨂⋁⋀∐"}
_VARIANTS = {
    "bold": ("BOLD",),
    "bold-italic": ("BOLD ITALIC", "BOLD"),
    "italic": ("ITALIC",),
    "double-struck": ("DOUBLE-STRUCK",),
    "monospace": ("MONOSPACE",),
    "sans-serif": ("SANS-SERIF",),
    "script": ("SCRIPT",),
    "fraktur": ("FRAKTUR",),
}


def _math(tex: str, block: bool) -> str:
    source = tex.strip()
    for pattern, replacement in _REWRITES:
        source = pattern.sub(replacement, source)
    source = _TEXT.sub(lambda words: re.sub(r"\\([_%#&])", r"\1", words[0]), source)
    try:
        markup = convert(source, display="block" if block else "inline")
        root = ET.fromstring(markup.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', ""))
    except Exception as error:  # the converter raises whatever it stumbles over
        raise ValueError(
            f"no MathML for the formula {tex.strip()!r}: {str(error) or type(error).__name__}"
        ) from error
    for text in root.itertext():
        if "\\" in text or "$" in text:
            raise ValueError(
                f"no MathML for {text!r} in the formula {tex.strip()!r}: write it with other commands"
            )
    _polish(root, block)
    for name in root.iter("mi"):
        name.text = (name.text or "").replace("argm", "arg\u2009m")
    return ET.tostring(root, encoding="unicode")


def _polish(parent: ET.Element, display: bool) -> None:
    """Make the converter's MathML what MathML Core draws well, in place, from the inside out."""
    display = (display or parent.get("displaystyle") == "true") and parent.get("displaystyle") != "false"
    for child in parent:
        _polish(child, display and parent.tag not in ("mfrac", "msub", "msup", "msubsup"))
    for child in parent:
        _sign(child)
        _letters(child)
        if child.tag in ("msub", "msubsup") and display and (child[0].text or "") in _LIMITS:
            child.tag = "munder" if child.tag == "msub" else "munderover"
        if child.tag in ("mover", "munder") and len(child) > 1 and (child[1].text or "") in tuple(_ACCENTS):
            child.set("accent" if child.tag == "mover" else "accentunder", "true")
        if child.tag == "mtable" and "columnspacing" in child.attrib:
            child.set("class", "aligned")
            del child.attrib["columnspacing"]
        if child.tag == "mtable":
            child.attrib.pop("rowspacing", None)
        if align := child.attrib.pop("columnalign", None):
            child.set("style", f"text-align:{align}")
        if child.tag == "mspace" and child.get("width", "").startswith("negative"):
            child.set("width", "-0.167em")
        if (
            child.tag == "mrow"
            and len(child) == 1
            and child[0].tag == "mo"
            and parent.tag in ("mrow", "math")
        ):
            child[0].set("lspace", "0")  # {,} in 1{,}000 is no comma of a list
            child[0].set("rspace", "0")
    if parent.tag in ("math", "mrow", "mtd", "mstyle", "msqrt"):
        _join(parent)
        _space(parent)


def _sign(element: ET.Element) -> None:
    text = (element.text or "").strip()
    if element.tag == "mo" and len(element):  # \mathop around something: its spacing is that of a name
        element.tag = "mrow"
        return
    if element.tag == "mi" and text in _OPERATORS:
        element.tag, element.text = "mo", _OPERATORS[text]
    elif element.tag in ("mi", "mo") and text and text in _FENCES and element.get("stretchy") != "true":
        element.tag = "mo"
        element.attrib |= {"stretchy": "false", "lspace": "0", "rspace": "0"}
    elif element.tag == "mi" and text and not text.strip("′″‴"):
        element.tag = "mo"
    elif element.tag == "mi" and len(text) == 1 and unicodedata.name(text, "").startswith("GREEK CAPITAL"):
        element.attrib.setdefault("mathvariant", "normal")
    elif element.tag == "mo" and text[:1].isalpha():
        element.tag = "mi"
        element.attrib.clear()
        if len(text) == 1:
            element.set("mathvariant", "normal")


def _letters(element: ET.Element) -> None:
    variant = element.get("mathvariant")
    if variant in (None, "normal"):
        return
    del element.attrib["mathvariant"]
    if element.tag == "mtext":
        styles = {
            "bold": "font-weight:bold",
            "italic": "font-style:italic",
            "monospace": "font-family:monospace",
        }
        if variant in styles:
            element.set("style", styles[variant])
        return
    element.text = "".join(_letter(c, _VARIANTS.get(variant or "", ())) for c in element.text or "")


def _letter(character: str, variants: tuple[str, ...]) -> str:
    name = unicodedata.name(character, "")
    kind = re.fullmatch(r"(?:LATIN|GREEK) (CAPITAL|SMALL) LETTER (\w+)|(DIGIT) (\w+)", name)
    if kind:
        for variant in variants:
            try:
                return unicodedata.lookup(f"MATHEMATICAL {variant} {' '.join(filter(None, kind.groups()))}")
            except KeyError:
                continue
    return character


def _join(parent: ET.Element) -> None:
    """Upright letters side by side are one name."""
    children: list[ET.Element] = []
    for child in parent:
        upright = child.tag == "mi" and child.get("mathvariant") == "normal"
        if upright and children and children[-1].tag == "mi" and children[-1].get("joined"):
            children[-1].text = (children[-1].text or "") + (child.text or "")
            continue
        if upright:
            child.set("joined", "true")
        children.append(child)
    for child in children:
        if child.attrib.pop("joined", None) and len(child.text or "") > 1:
            child.attrib.pop("mathvariant")
    parent[:] = children


def _space(parent: ET.Element) -> None:
    """Thin spaces around the names of functions; signs of numbers close to them."""
    children: list[ET.Element] = []
    before: ET.Element | None = None
    for child in parent:
        if child.tag == "mo" and child.text in ("−", "+") and (before is None or _opens(before)):
            child.set("form", "prefix")
        operand = child.tag in ("mi", "mn", "msub", "msup", "msubsup", "mfrac", "msqrt", "munder", "mover")
        if before is not None and ((_named(before) and operand) or (_named(child) and _ends(before))):
            children.append(ET.Element("mspace", {"width": "0.167em"}))
        children.append(child)
        if child.tag != "mspace":
            before = child
        else:
            before = ET.Element("mspace")
    parent[:] = children


def _named(element: ET.Element) -> bool:
    base = element
    while base.tag in ("msub", "msup", "msubsup", "munder", "munderover") and len(base):
        base = base[0]
    while base.tag == "mrow" and len(base) == 1:
        base = base[0]
    return base.tag == "mi" and len(base.text or "") > 1 and (base.text or "")[0].isascii()


def _opens(element: ET.Element) -> bool:
    return (
        element.tag == "mo"
        and (element.text or "") not in tuple(")]}⌋⌉⟩|‖!%")
        and element.get("form") != "postfix"
    )


def _ends(element: ET.Element) -> bool:
    return element.tag in ("mi", "mn", "msub", "msup", "msubsup", "mfrac", "msqrt") or element.text in (
        ")",
        "]",
    )
