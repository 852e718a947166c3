"""What identifies or gives access (addresses, numbers, keys) replaced by fixed words.

Patterns are bounded and take linear time on any text. Numbers that carry a check digit are checked,
so that an ordinary long number is left alone; numbers of telephones carry none, so years, dates and
round numbers are left alone.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable

_LETTERS = "A-Za-z0-9\u00c0-\u024f\u0370-\u052f"
"""Latin, Greek, Cyrillic, digits. Others may stand right before and behind what is masked, since
they have no spaces."""
_EMAIL = re.compile(
    rf"(?<![{_LETTERS}_.%+@/-])[{_LETTERS}_][{_LETTERS}_.%+'-]{{0,63}}"
    r"(?:@| ?[\[({](?:(?i:at)|@)[\])}] ?)"
    rf"(?:[{_LETTERS}][{_LETTERS}-]{{0,62}}(?:\.| ?[\[({{](?:(?i:dot)|\.)[\])}}] ?)){{1,4}}"
    rf"(?:xn--[a-z0-9]{{2,59}}|(?:(?![0-9])[{_LETTERS}]){{2,24}})(?![{_LETTERS}])"
)
_SPELT_EMAIL = re.compile(
    r"(?i)(?<![\w.%+@-])(?!(?:me|us|you|him|her|it|them|all|one|out|up|is|are|be|was|were|live|look"
    r"|online|here|now|more|site|website|page|shop|store|available|today|and|or|job|work|met|meet"
    r"|read|see|seen|find|found|watch|order|buy|sold|sign|check|visit|works|worked|join|register"
    r"|listen|apply|book|donate|vote|learn|details|info|tickets)\b)"
    r"[a-z0-9][a-z0-9._%+-]{0,19} at [a-z0-9][a-z0-9-]{0,15}(?: dot [a-z]{2,6}){1,2}(?!\w)"
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|hf_[A-Za-z0-9]{20,64}|sk-[A-Za-z0-9_-]{20,200}|[srp]k_(?:live|test)_[A-Za-z0-9]{10,99}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,99}|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{30,64}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{16,255}|whsec_[A-Za-z0-9]{20,99}"
    # Discord, Telegram
    r"|[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45}"
    r"|[0-9]{8,10}:[A-Za-z0-9_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{0,1000}"
    r"|(?:0x)?[0-9a-fA-F]{32,128}(?![A-Za-z0-9])"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/= ]{0,4000}"
    r")"
)
_SECRET = re.compile(
    r"(?i)(?<![a-z0-9])(?:(?:api[ _-]?key|(?:client|app|api)[ _-]?secret"
    r"|secret[ _-]?(?:access[ _-]?)?key|token|passw(?:or)?d|passphrase|passcode|pwd|pw"
    r"|passwort|kennwort|contraseña|mot de passe|senha|пароль|密[码碼]|パスワード|비밀번호)"
    r"[\"']?(?: ?[:=] ?| is )|bearer )[\"']?"
    r"((?!https?:|[@#$])[^\s\"'<>]{6,200})"
)
_TOKEN = re.compile(r"(?<![\w#@/-])[A-Za-z0-9_-]{32,200}(?![\w-])")
_IBAN = re.compile(
    # in lower case with a digit in every group, since words may follow
    r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}"
    r"(?:[ -]?(?:[A-Z0-9]{4}|(?=[a-z]{0,3}[0-9])[a-z0-9]{4})){1,6}(?:[ -]?[A-Z0-9]{1,3})?"
    r"(?![A-Za-z0-9])"
)
_CARD = re.compile(r"(?<![0-9+.,-])[2-6][0-9]{3}(?:[ .-]?[0-9]){9,15}(?![0-9])")
_IPV4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_PHONE = re.compile(
    # +44 20 7946 0958, 0044 20 7946 0958
    rf"(?:(?<![{_LETTERS}_+])\+|(?<![{_LETTERS}_+.,$/-])00(?=[1-9]))[0-9]{{1,3}}"
    r"(?:[ .()/-]{0,2}[0-9]{1,5}){2,6}(?![0-9])"
    # 202-555-0143, (202) 555-0143, 1.202.555.0143
    rf"|(?<![{_LETTERS}_.,$-])(?:1[ .-]?)?(?:\([0-9]{{3}}\)[ .-]?|[1-9][0-9]{{2}}[ .-])"
    r"[0-9]{3}[ .-]?[0-9]{4}(?![0-9])"
    # 1-800-FLOWERS
    r"|(?<![\w-])1?-?8(?:00|33|44|55|66|77|88)-[A-Z]{7}(?![A-Za-z0-9])"
    rf"|(?<![{_LETTERS}_.,$/=#-])(?:"
    # 2025550143, 13800138000, 89123456789, 0612345678
    r"[178]?[2-9][0-9]{9}|0[1-9][0-9]{7,10}"
    # 020 7946 0958, 0171/1234567; 06 12 34 56 78, 06.12.34.56.78, 070-123 45 67
    r"|0[1-9][0-9]{0,3}[ /-][0-9]{3,4}[ -]?[0-9]{3,5}"
    + "".join(
        rf"|0[1-9](?:[0-9]{{0,3}}{sign}|[0-9]{{1,2}}[/-])[0-9]{{2,4}}(?:{sign}[0-9]{{2,4}}){{1,3}}"
        for sign in (" ", r"\.", "-")
    )
    # (11) 98765-4321, (02) 9374 4000; 11 98765-4321
    + r"|\((?:[0-9]{2}|0[0-9]{2,4})\) ?[0-9]{3,5}[ -]?[0-9]{3,4}|[1-9][0-9] 9[0-9]{4}-[0-9]{4}"
    # 138-0013-8000; 8 (912) 345-67-89; 98100 12345
    r"|1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}"
    r"|[78][ -]?\(?[3489][0-9]{2}\)?[ -]?[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{2}"
    r"|[6-9][0-9]{4}[ -][0-9]{5}"
    rf")(?![{_LETTERS}_%]|[.,/-][{_LETTERS}])"
)
_NAMED_PHONE = re.compile(
    # call 555-0143, móvil: 612 345 678, WhatsApp 20 12 34 56, ☎ 555 0143
    r"(?i)(?:\b(?:call|phone|tel|text|dial|fax|cell|mobile|whats ?app|reach|my number|llam\w{1,6}"
    r"|tel[eé]f\w{1,5}|tfno|m[oó]vil|t[eé]l[eé]phone|portable|appele[rz]|handy\w{0,6}|mobil\w{0,6}"
    r"|anruf\w{0,3}|cellulare|chiam\w{1,4}|ligue|ligar|zadzwo\w{1,3}|тел\w{0,7}|звони\w{0,3})"
    r"(?: us| me| at| on| is| number| nr| al| unter| au| le| il){0,3}[:. ]{1,3}"
    r"|(?:wa\.me/|[☎📞📱📲]|电话|電話|手机|전화)\ufe0f?[: ]{0,3})"
    r"(\+?\(?[0-9](?:[ .()/-]{0,2}[0-9]){6,13})"
    rf"(?![{_LETTERS}_%]|[.,/-][{_LETTERS}])"
)
_NO_PHONE_BEHIND = re.compile(
    r"(?i)(?:isbn|issn|doi|rfc|views|likes|followers|population|[$€£¥#])[:. #-]{0,3}\Z"
)
_NO_PHONE_BEFORE = re.compile(
    r"(?i) ?(?:[%€$£¥]|(?:people|persons|views|likes|followers|euros?|dollars|pounds|habitants"
    r"|votes|steps|calories|miles|km|tons|tonnes|million|billion)\b)"
)
_NO_PHONES = ("2147483647", "4294967295", "2718281828", "3141592653")
_NO_IP_BEHIND = re.compile(
    r"(?i)(?:version|firmware|ios|android|release|build|section|chapter|article|\bv|§)\.? ?\Z"
)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_MONTH = re.compile(r"(?:0?[1-9]|1[0-2])/(?:19|20)[0-9]{2}\b")
_DAY = re.compile(r"[0-3]?[0-9]([ ./-])[0-3]?[0-9]\1[1-9][0-9]{3}")
_TIMES = re.compile(r"[0-2]?[0-9]\.[0-5][0-9](?:[ -]{1,2}[0-2]?[0-9]\.[0-5][0-9]){1,3}")
_DIGITS = re.compile("[0-9]+")
_NUMBER = re.compile(r"[0-9](?:[ .()/-]{0,4}[0-9]){6}|8[0-9]{2}-[A-Z]{7}")
_LOGIN = re.compile(r"(?i)\b(?:user|login)")
_CONTEXT_CHARS = 40
_MIN_TOKEN_CHARS = 16

MASKS = ("<email>", "<phone>", "<ip>", "<card>", "<iban>", "<key>")
"""What stands in the place of what was there."""


def mask_pii(text: str) -> str:
    """Replace e-mail addresses, phone numbers, IP addresses, card numbers, IBANs and keys."""
    plain = text if text.isascii() else text.translate(_PLAIN)
    for is_worth_it, pattern, mask, is_one in _RULES:
        if not is_worth_it(plain):
            continue
        group = pattern.groups  # what is masked, where it is not all of it
        spans = [match.span(group) for match in pattern.finditer(plain) if is_one(match)]
        if spans:
            text, plain = _put(mask, spans, text), _put(mask, spans, plain)
    return text


def _put(mask: str, spans: list[tuple[int, int]], text: str) -> str:
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return mask.join(text[end:start] for end, start in zip(ends, starts, strict=True))


class _Plain(dict[int, int]):
    """For `str.translate`: digits of all scripts and full-width signs to ASCII, one for one."""

    def __missing__(self, code: int) -> int:
        digit = unicodedata.decimal(chr(code), None)
        is_wide = 0xFF01 <= code <= 0xFF5E
        self[code] = ord("0") + digit if digit is not None else code - 0xFEE0 * is_wide
        return self[code]


_PLAIN = _Plain(
    {ord(dash): ord("-") for dash in "\u2010\u2011\u2012\u2013\u2212\ufe63"}
    | {ord(space): ord(" ") for space in "\u00a0\u2007\u2009\u202f"}
)


def _is_secret(match: re.Match[str]) -> bool:
    """Whether the value is no plain word, or a name to log in with stands before it."""
    if match[0].lower().startswith("bearer") and len(match[1]) < _MIN_TOKEN_CHARS:
        return False
    is_plain = re.search(r"[0-9]|[a-z][A-Z]", match[1]) is None
    return not is_plain or _LOGIN.search(_before(match, match.start())) is not None


def _is_random(match: re.Match[str]) -> bool:
    """Whether a long word looks drawn at random: digits between letters of both cases."""
    word = match[0]
    digits = sum(char.isdigit() for char in word)
    return digits >= 3 and word.lower() != word and word.upper() != word


def _is_iban(match: re.Match[str]) -> bool:
    code = re.sub("[ -]", "", match[0])
    if not 15 <= len(code) <= 34 or sum(char.isdigit() for char in code) < 10:
        return False
    # ISO 13616: its first four behind the rest, letters as 10 to 35, leave 1.
    return int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def _is_card(match: re.Match[str]) -> bool:
    groups = _DIGITS.findall(match[0])
    digits = [int(char) for char in "".join(groups)]
    # Luhn's sum of digits, every second from the right doubled.
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and not _are_years_or_round(groups)


def _is_ip(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if address.version == 6:
        return len(match[0]) >= 6
    is_long = any(len(part) > 2 for part in match[0].split("."))
    return is_long and not _NO_IP_BEHIND.search(_before(match, match.start()))


def _is_phone(match: re.Match[str]) -> bool:
    named = match.re.groups
    number = match[named]
    start, end = match.span(named)
    groups = _DIGITS.findall(number)
    digits = "".join(groups)
    least = 11 if number.startswith("00") else 7 if named else 8
    if number[-1].isalpha():
        return True
    # E.164 has at most 15 digits.
    if not least <= len(digits) <= 15 or len(set(digits)) == 1 or digits in _NO_PHONES:
        return False
    is_amount = (  # +10 000 000
        number[0] == "+"
        and all(len(group) == 3 for group in groups[1:])
        and (len(digits) <= 9 or digits.endswith("000"))
    )
    is_time = bool(named) and _TIMES.fullmatch(number) is not None  # call 10.30-11.30
    lengths = set(map(len, groups))
    is_row = len(groups) > 4 and lengths == {1, 2} and number[0] != "+"  # call 1 10 20 30 40 50
    return not (
        is_amount
        or is_time
        or is_row
        or digits.endswith("00000")
        or 2 * len(groups) > len(digits) + 2  # +1 2 3 4 5 6 7 8
        or _is_dated(number, groups)
        or _are_years_or_round(groups)
        or _NO_PHONE_BEHIND.search(_before(match, start))
        or _NO_PHONE_BEFORE.match(match.string, end)
    )


def _is_dated(number: str, groups: list[str]) -> bool:
    """Whether a number is made of years and months: 2023-05-06, 09/2010-2011, 02/2021-12345.

    Or is a day of any year: 04-07-1776, 01.09.1815.
    """
    if _DAY.fullmatch(number):
        return True
    rest = [group for group in groups if not _YEAR.fullmatch(group)]
    has_year = len(rest) < len(groups)
    is_date = has_year and all(len(group) <= 2 for group in rest)
    is_span = len(groups) > 2 and len(rest) <= 1
    return is_date or is_span or _MONTH.match(number) is not None


def _are_years_or_round(groups: list[str]) -> bool:
    return len(groups) > 1 and all(one[-2:] == "00" or _YEAR.fullmatch(one) for one in groups)


def _before(match: re.Match[str], start: int) -> str:
    return match.string[max(0, start - _CONTEXT_CHARS) : start]


def _always(_: object) -> bool:
    return True


def _has(least: int, *signs: str) -> Callable[[str], bool]:
    return lambda text: any(text.count(sign) >= least for sign in signs)


_Rule = tuple[Callable[[str], object], re.Pattern[str], str, Callable[[re.Match[str]], bool]]
_RULES: tuple[_Rule, ...] = (
    (_has(1, "@", "[", "(", "{"), _EMAIL, "<email>", _always),
    (_has(1, " dot ", " DOT "), _SPELT_EMAIL, "<email>", _always),
    (_has(1, ":", "=", " is ", "earer "), _SECRET, "<key>", _is_secret),
    (_DIGITS.search, _KEY, "<key>", _always),
    (_DIGITS.search, _TOKEN, "<key>", _is_random),
    (_DIGITS.search, _IBAN, "<iban>", _is_iban),
    (_NUMBER.search, _CARD, "<card>", _is_card),
    (_has(2, "."), _IPV4, "<ip>", _is_ip),
    (_has(2, ":"), _IPV6, "<ip>", _is_ip),
    (_NUMBER.search, _PHONE, "<phone>", _is_phone),
    (_NUMBER.search, _NAMED_PHONE, "<phone>", _is_phone),
)
"""In this order; each: may a text hold one, where, what stands there then, and is it one."""
