"""What of a post is its author's: words repeated by hand tell of somebody else.

Services mark what is reposted by their own button; `RT @bob: ...` typed or pasted they do not.
"""

import re

_NAME = r"@\w[\w.@-]{0,60}"
_REPOSTED = re.compile(
    # rt @bob, MT: @bob, "RT @bob, RT by @bob; RT : where a name was taken out
    rf"[\s\"“”„«‘'.]{{0,9}}(?:(?:RT|Rt|rt|MT|mt)\s*:?(?:\s*by)?\s*[\"“]?{_NAME}|RT\s+:\s)"
    r"|\s{0,9}(?i:retweeted) [^\n]{1,60}\(@\w{1,60}\)\s*:"
)
_OTHERS = re.compile(
    # so true! RT @bob: ...; without a colon behind the end of a sentence ("Please RT @bob" is own)
    rf"(?<!\w)(?:RT|Rt|rt|MT|mt)\s*:?\s*[\"“]?{_NAME}\s*[:：]"
    rf"|(?<=[.!?…。！？])\s{{0,3}}[RM]T\s*:?\s*{_NAME}"
    # "@bob: ..."; //@bob: of Weibo
    rf"|(?<!\S)[\"“]{_NAME}:\s|(?<!:)//{_NAME}[:：]"
    # the text of a page of X
    r"|\nQuote(?: Tweet)?\n[^\n]{1,200}\n@\w{1,60}\n"
)
_QUOTATION = re.compile(rf"(?<!\S)(?:\"{_NAME}:\s[^\"\n]*\"|“{_NAME}:\s[^”\n]*”)")
"""One that closes: what stands behind it is own again."""
_QUOTED_LINES = re.compile(
    # On Monday Bob wrote: (not: I wrote)
    r"(?m)(?:^(?![ \t]*(?i:i|we|ich|wir|je|nous|yo|eu|io)\b)"
    r"[^\n]{0,200}\b(?:wrote|writes|said|schrieb|a écrit|escribió|escreveu|ha scritto"
    r"|schreef|napisał|пишет|написал)\b[^\n]{0,60}:\s{1,4})?"
    # > what he wrote; a face such as >:( or >_< is own
    r"^[ \t]{0,3}>(?![:;_.=^<-])[^\n]*(?:\n|\Z)"
)


def own_words(text: str) -> str:
    """Cut out of a post, without entities, what somebody else said: "" where that is all of it."""
    if _REPOSTED.match(text):
        return ""
    text = _QUOTATION.sub("", text)
    if cut := _OTHERS.search(text):
        text = text[: cut.start()]
    return _QUOTED_LINES.sub("", text) if ">" in text and "\n" in text else text
