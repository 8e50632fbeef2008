"""What the words around an object say about it: that it is the call, or an example, a draft, a call taken back.

A model often gives its reasons in front of its call, and those speak of wrong quantities, rejected orders and what has
not arrived. So only a word that can be about the object counts: in the last clause before it, or, where the last
sentence has ended, in a sentence that points forward. In English, with the plainest words of languages into which
models slip.
"""

from __future__ import annotations

import re

_EXAMPLE = (
    r"examples?|drafts?|beispiele?|entwurf|exemples?|brouillon|ejemplos?|borrador|exemplos?|rascunho"
    r"|esempio|bozza|пример|черновик"
)
_BAD = (
    r"wrong|invalid|incorrect|rejected|previous(?:ly)?|earlier|alternatives?(?! \w)"
    r"|mistake(?! to)|last (?:repl(?:y|ies)|calls?|actions?|answers?|messages?|turns?|steps?)"
    r"|falsch\w*|faux|falso|sbagliat\w|неверно"
)
_WHETHER = ("check", "see", "know", "verify", "ask", "out", "determine", "confirm", "sure", "clear", "even", "as")
"""After these words "if" is no condition."""

_SUPPOSED = re.compile(
    rf"\b(?:{_EXAMPLE}|instance|e\.g|unless|{''.join(f'(?<!{word} )' for word in _WHETHER)}if)\b|[例误誤]|예시"
    r"|^\W*(?:when|once(?! again| more)|until|in case)\b",
    re.IGNORECASE,
)
"""In the sentence before an object: it is an example, or holds under a condition."""

_OTHERS = r"(?:an|another|any|some|every|the) (?:\w+ )?(?:agent|model|assistant|person|user|docs|system prompt)"

_DOUBT = re.compile(
    r"\b(?:rather than|consider(?:ed|ing)?|ideas?|thoughts?|thinking|not|never|\w+n['’]t|bad|maybe|perhaps|might|could"
    r"|would(?! like)|hypothetical\w*|suppose|imagine|was going to|had planned|wanted to|should have|such as|tempt\w+"
    r"|too (?:early|late)|refuse|decline|forbidden|placeholder|schema|nobody|no one|nothing|later do"
    r"|no (?:need|sense|point|reason)|(?:second|third|other) (?:choice|option)"
    r"|nicht|kein\w*|nie(?:mals)?|vielleicht|ne|n['’]\w+|pas|jamais|no (?:voy|har[ée]|debo|quiero|es|se|lo|la)|nunca"
    r"|jam[áa]s|não|non(?!-)|mai|не|нельзя|никогда)\b"
    rf"|^\W*{_OTHERS}\b|^\W*(?:(?:please|i|we|you|should|must) )*(?:avoid|ignore|skip|discard)\b"
    r"|^\W*(?:(?:the|a|last|new|next) )*observation\b|^\W*(?:(?:a|one|another|the) )*possible\b"
    r"|^\W*(?:later|tomorrow|yesterday|before|after|otherwise|alternatively|fallback|or|else)\b"
    r"|^\W*(?:(?:i|the|my|a|one|an|another) )*(?:plan|sample|template|options?(?: \w)?)\W*$"
    r"|^\W*(?:(?:the|a|required|expected|correct|json|reply|answer) )*format(?: is)?\W*$"
    r"|\b(?:did|sent|made|called|used|tried|wrote|replied|answered|said|says?|told|asked|asks|writes?|shows?|showed"
    r"|to (?:avoid|ignore|skip)|(?:looks?|something) like|instead of(?: \w+)?)\W*$"
    r"|不|没|沒|別|别|勿|未|ない|ません|않|마세요",
    re.IGNORECASE,
)
"""In the last clause before an object: it is not chosen, not yet or not any more, or others speak."""

_FAULT = re.compile(rf"\b(?:{_BAD})\b", re.IGNORECASE)
_MENDED = re.compile(r"\b(?:correct|fix|retry|retries|adjust|revis|updat|replac|amend|instead)\w*", re.IGNORECASE)
"""In a clause with a fault: the call mends it."""

_WARNS = re.compile(
    rf"(?<!for )(?<!zum )(?<!par )(?<!por )(?<!per )\b(?:{_EXAMPLE})\b|\bmistake to\b"
    rf"|\b(?:this|these|following|here)(?:['’]s| (?:is|are|was|were|would|will|has))\b.*\b(?:{_BAD})\b"
    rf"|\b(?:{_BAD})\b.*\b(?:following|below)\b"
    r"|^\W*not (?:this|that|these|so)\b"
    r"|(?:^|\b(?:i|we|you|please|one)\b)[^,;]*\b(?:not|never|\w+n['’]t|avoid|refuse)\b(?: \w+){0,2}?"
    r" (?:do|doing|use|using|call|calling|send|sending|make|try|repeat|run|choose|take|reply|answer|output|submit|write"
    r"|execute|perform|follow|recommend|suggest|want|to|like)"
    r" (?:\w+ )?(?:this|that|these|it|so|following|below)\b"
    r"(?=\W*$| (?:now|again|yet|today|either|one|way|call|action|reply|answer|any|at|in|on|for|because|since|if)\b)",
    re.IGNORECASE,
)
"""In a sentence that has ended before an object: it warns of what follows."""

_TAKEN_BACK = re.compile(
    r"\W*(?:but|however|wait|hmm+|actually|or|instead|rather(?=,)|alternatively|on (?:second thoughts?|reflection)"
    r"|hold on|nothing (?:of|like)|oops|sorry|just kidding|my mistake|correction|never ?mind"
    r"|let me (?:re\w+|think|try|correct|start over|do something else)|let['’]s (?:not|wait)"
    r"|too (?:early|late|soon)|forget about"
    r"|(?:(?:hm+|well|ah|oh|um+)\W+)?no(?=\W*(?:$|[,.!;:—–-]|wait|that|this|i\b))"
    r"|not(?= (?:this|that|yet|now|really|quite|so|the|a)\b|\W*$)"
    r"|(?:scratch|ignore|forget|cancel|strike|disregard|discard|revert|delete|undo) (?:that|this|it|the above)"
    r"|(?:please )?(?:do not|don['’]t|never) (?:do|run|execute|use|send|call) (?:this|that|it)"
    r"|i (?:(?:will|would|should|do|can) ?not|(?:wo|do|would|should|ca)n['’]t)(?: \w+){0,2}? (?:this|that|it|so)"
    r"|i (?:take|took) (?:that|it) back"
    r"|i (?:decided against|changed my mind|meant|retract)|i(?:['’]d| had| would) (?:better|rather) not"
    r"|(?:this|that) (?:is|was|would)(?:n['’]t| not| only)"
    r"|(?:this|that|it|(?:the )?above(?: call| reply| json)?)(?:['’]s| (?:is|was|would be))(?: just| only| merely)?"
    rf"(?: an?| the| my| too)* (?:{_EXAMPLE}|{_BAD}|bad|early|soon|last)"
    r"|nein|nicht|aber|doch|non|mais|pero|não|mas|нет|но)\b"
    r"|\W*(?:please )?(?:cancel|stop|undo|revert|ignore|disregard|delete|abort|nope|nah|wrong|invalid|bad idea"
    rf"|(?:just |only )?(?:an? )?(?:{_EXAMPLE})(?: only)?)\W*$"
    r"|\W*(?:不|但|等等|いや|しかし|아니|하지만)",
    re.IGNORECASE,
)
"""At the beginning of the sentence that follows an object."""

_POINTS = re.compile(r"\b(?:this|these|so|following|below)\b", re.IGNORECASE)
_REMARK = re.compile(rf"(?!\W*(?i:{_EXAMPLE}|{_BAD}|bad)\b)(?:[A-Z(#]|//|[-–—] )")
_ENDED = re.compile(r"[.!?。][\s*_\"')\]]*$")
_END = re.compile(r"[.!?\n]")
_NEXT_SENTENCE = re.compile(r"[.!?]\s+(?=\S)|。")
_HENCE = re.compile(
    r"(?<!do )(?<!doing )\b(?:so|therefore|thus|hence|then|but|and),?\s+(?=(?:i|we|let|now|here|the|my)\b)|所以|因此",
    re.IGNORECASE,
)
_NEXT_CLAUSE = re.compile(r"[,;，；、]")
_BECAUSE = re.compile(
    r"\b(?:because|since|(?<!such )as|although|though|given|weil|denn|parce que|porque|perch[ée]|потому что)\b.*$",
    re.IGNORECASE,
)


def mentioned(line: str) -> bool:
    """Whether the line that leads to an object speaks of it as of something other than the call."""
    sentence = _NEXT_SENTENCE.split(line.rstrip(" .!?。:：>*`|[_\"')]"))[-1]
    if ended := _ENDED.search(line):
        return bool(_WARNS.search(sentence) or (ended[0][0] == "?" and _POINTS.search(sentence)))
    sentence = _HENCE.split(sentence)[-1]
    clause = _BECAUSE.sub("", _NEXT_CLAUSE.split(sentence)[-1])
    fault = _FAULT.search(clause) and not _MENDED.search(clause)
    return bool(fault or _SUPPOSED.search(sentence) or _DOUBT.search(clause))


def remark(after: str) -> bool:
    """Whether what follows an object on its line is a remark on the call, not the rest of a sentence about it."""
    return bool(_REMARK.match(after))


def taken_back(rest: str) -> bool:
    """Whether what follows an object begins with words that take it back."""
    return bool(_TAKEN_BACK.match(_END.split(rest.lstrip(), maxsplit=1)[0]))
