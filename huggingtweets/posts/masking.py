"""What identifies or gives access (addresses, numbers, keys) replaced by fixed words.

Patterns are bounded and take linear time on any text. Numbers that carry a check digit are checked,
so that an ordinary long number is left alone.
"""

import ipaddress
import re

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+@-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"
    r"(?:@| ?[\[(](?:at|AT)[\])] ?)"
    r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
    r"(?:(?:\.| ?[\[(](?:dot|DOT)[\])] ?)[A-Za-z0-9][A-Za-z0-9-]{0,62}){1,4}(?![A-Za-z0-9])"
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|hf_[A-Za-z0-9]{20,64}|sk-[A-Za-z0-9_-]{20,200}|[srp]k_(?:live|test)_[A-Za-z0-9]{10,99}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,99}|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{30,64}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{16,255}"
    r"|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{0,1000}"
    r"|(?:0x)?[0-9a-fA-F]{32,128}(?![A-Za-z0-9])"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/= ]{0,4000}"
    r")"
)
_SECRET = re.compile(
    r"(?i)(?<![A-Za-z0-9])((?:api[ _-]?key|secret|access[ _-]?token|passw(?:or)?d)[\"']?"
    r" ?[:=] ?[\"']?)[^\s\"'<>]{6,200}"
)
_TOKEN = re.compile(r"(?<![\w#@/-])[A-Za-z0-9_-]{32,200}(?![\w-])")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_CARD = re.compile(r"(?<![0-9+.,-])[2-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![0-9])")
_IPV4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_PHONE = re.compile(
    # +44 20 7946 0958
    r"(?<![\w+])\+[0-9]{1,3}(?:[ .()/-]{0,2}[0-9]{1,5}){2,6}(?![0-9])"
    # 202-555-0143, (202) 555-0143, 1.202.555.0143
    r"|(?<![\w.,$-])(?:1[ .-]?)?(?:\([0-9]{3}\)[ .-]?|[0-9]{3}[ .-])[0-9]{3}[ .-]?[0-9]{4}(?![0-9])"
    # 2025550143
    r"|(?<![\w.,$/=-])1?[2-9][0-9]{2}[2-9][0-9]{6}(?![0-9.,%]|\w)"
    # 020 7946 0958, 0171/1234567
    r"|(?<![\w.,$-])0[0-9]{1,4}[ /-][0-9]{3,4}[ -]?[0-9]{3,5}(?![0-9])"
    # 1-800-FLOWERS
    r"|(?<![\w-])1?-?8(?:00|33|44|55|66|77|88)-[A-Z]{7}(?![A-Za-z0-9])"
)
_LOCAL_PHONE = re.compile(
    r"(?i)\b((?:call|phone|tel|text|dial|fax|cell|whatsapp)(?: us| me| at| on| number)?[:. ]{1,3})"
    r"[0-9]{3}[ .-]?[0-9]{4,8}(?![0-9])"
)


_DIGIT = re.compile(r"\d")

MASKS = ("<email>", "<phone>", "<ip>", "<card>", "<iban>", "<key>")
"""What stands in the place of what was there."""


def mask_pii(text: str) -> str:
    """Replace e-mail addresses, phone numbers, IP addresses, card numbers, IBANs and keys."""
    if "@" in text or "[" in text or "(" in text:
        text = _EMAIL.sub("<email>", text)
    if ":" in text or "=" in text:
        text = _SECRET.sub(r"\1<key>", text)
    if _DIGIT.search(text) is None:
        return text
    text = _KEY.sub("<key>", text)
    text = _TOKEN.sub(lambda match: "<key>" if _is_random(match[0]) else match[0], text)
    text = _IBAN.sub(lambda match: "<iban>" if _is_iban(match[0]) else match[0], text)
    text = _CARD.sub(lambda match: "<card>" if _is_card(match[0]) else match[0], text)
    for pattern, sign in ((_IPV4, "."), (_IPV6, ":")):
        if text.count(sign) >= 2:
            text = pattern.sub(lambda match: "<ip>" if _is_ip(match[0]) else match[0], text)
    text = _PHONE.sub(lambda match: "<phone>" if _is_phone(match[0]) else match[0], text)
    return _LOCAL_PHONE.sub(r"\1<phone>", text)


def _is_random(word: str) -> bool:
    """Whether a long word looks drawn at random: digits between letters of both cases."""
    digits = sum(char.isdigit() for char in word)
    return digits >= 3 and word.lower() != word and word.upper() != word


def _is_iban(text: str) -> bool:
    code = text.replace(" ", "")
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 or len(text) >= 6


def _is_phone(text: str) -> bool:
    digits = [char for char in text if char.isdigit()]
    return len(digits) <= 15 and (len(digits) >= 8 or text[-1].isalpha()) and len(set(digits)) > 1
