import time

import pytest

from huggingtweets.posts.masking import mask_pii

MASKED = {
    "mail jane.doe+x@example.co.uk today": "mail <email> today",
    "jane (at) example (dot) com": "<email>",
    "write to jane at example dot com": "write to <email>",
    "JANE AT EXAMPLE DOT COM now": "<email> now",
    "mailto:jane@example.com": "mailto:<email>",
    "call 202-555-0143 now": "call <phone> now",
    "call (202) 555-0143.": "call <phone>.",
    "call 1-800-985-5990": "call <phone>",
    "my number is 2025550143": "my number is <phone>",
    "+44 20 7946 0958 is the office": "<phone> is the office",
    "+4915112345678": "<phone>",
    "ring 020 7946 0958": "ring <phone>",
    "Berlin 030/1234567": "Berlin <phone>",
    "text 555-0143": "text <phone>",
    "1-800-FLOWERS": "<phone>",
    "server at 192.168.10.20 is down": "server at <ip> is down",
    "server at 2001:db8::ff00:42:8329": "server at <ip>",
    "card 4111 1111 1111 1111 please": "card <card> please",
    "card 5500-0000-0000-0004": "card <card>",
    "pay to DE89 3704 0044 0532 0130 00": "pay to <iban>",
    "pay to GB82WEST12345698765432!": "pay to <iban>!",
    "oops AKIAIOSFODNN7EXAMPLE leaked": "oops <key> leaked",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a": "<key>",
    "hf_abcdefGHIJKL0123456789mnopQRSTUV": "<key>",
    "sk-proj-a1b2c3d4e5f6g7h8i9j0k1l2": "<key>",
    "sha 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b": "sha <key>",
    "password: hunter22": "password: <key>",
    "api_key=abc123def456": "api_key=<key>",
    "token aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE": "token <key>",
}


WHOLE = {
    "email": """ann@müller.de|анна@почта.рф|ann＠example.com|ann[@]example.com
        _ann_@example.com|ünal@example.de|o'brien@example.com""",
    "phone": """06 12 34 56 78|06.12.34.56.78|06-12-34-56-78|0612345678|0475 12 34 56|0475/12.34.56
        079 123 45 67|07700900123|07700 900 123|(020) 7946 0958|0044 20 7946 0958|00447700900123
        01711234567|0171 123 45 67|3331234567|070-123 45 67|8 (912) 345-67-89|8-912-345-67-89
        89123456789|0532 123 45 67|(11) 98765-4321|11 98765-4321|13800138000|138-0013-8000
        138 0013 8000|9810012345|98100 12345|09012345678|090-1234-5678|01012345678|09171234567
        08031234567|081234567890|(02) 9374 4000|0412345678|202–555–0143|202‑555‑0143|202 555 0143
        ０９０－１２３４－５６７８|٠٥٠١٢٣٤٥٦٧|+34 612 345 678|+33 (0) 6 12 34 56 78
        1-800-356-9377""",
    "iban": """de89 3704 0044 0532 0130 00|DE89-3704-0044-0532-0130-00|GB29 NWBK 6016 1331 9268 19
        es91 2100 0418 4502 0005 1332""",
    "card": "4111.1111.1111.1111",
    "key": """whsec_abcdefghij1234567890ABCD
        MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs""",
}


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        (kind, secret.strip())
        for kind, secrets in WHOLE.items()
        for secret in secrets.replace("\n", "|").split("|")
    ],
)
@pytest.mark.parametrize("around", ["{}", "so {}, she wrote", "我的{}谢谢"])
def test_mask_pii_replaces_the_whole_of_it(kind: str, secret: str, around: str) -> None:
    assert mask_pii(around.format(secret)) == around.format(f"<{kind}>")


@pytest.mark.parametrize(
    ("text", "kind", "secret"),
    [
        ("call me at {}", "phone", "612 345 678"),
        ("📞{} now", "phone", "900 822 066"),
        ("Móvil: {}.", "phone", "612345678"),
        ("тел. {}", "phone", "345-67-89"),
        ("WhatsApp {}", "phone", "20 12 34 56"),
        ("tel. {} en Mexico", "phone", "55 1234 5678"),
        ("wa.me/{}", "phone", "15551234567"),
        ("Passwort: {}", "key", "geheim12"),
        ("contraseña: {}", "key", "secreto1"),
        ("mot de passe : {}", "key", "secret12"),
        ("пароль: {}", "key", "qwerty12"),
        ("密码：{}", "key", "abc12345"),
        ("pwd={}", "key", "hunter22"),
        ("pw: {}", "key", "hunterX"),
        ("the password is {}", "key", "hunter22"),
        ("user ann password: {}", "key", "letmein"),
        ("token: {}", "key", "abc123def456ghi"),
        ("Authorization: Bearer {}", "key", "abc123def456ghi789jkl"),
        ("AWS_SECRET_ACCESS_KEY={}", "key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ],
)
def test_mask_pii_knows_a_secret_by_the_word_before(text: str, kind: str, secret: str) -> None:
    assert mask_pii(text.format(secret)) == text.format(f"<{kind}>")


PLAIN = """The secret: kindness always wins|Secret: patience, friends|Password: friend, said Gandalf
    Password: https://t.co/aB3dE00012|find us at example dot com
    Bought 100@182.50|Milk 2@1.99|10k@4.30/km pace|meet me@7.30am
    version 2.0.0.1|iOS 14.4.2.1|Section 4.2.1.3 says|firmware 4.12.200.1|scores 6.4.3.6
    +10 000 000 euros|+10.000.000 views|+100 000 000|+25 500 000|+1 2 3 4 5 6 7 8
    06/1999-2003|season 09/2010-2011|02/2021-12345|+18 2023-05-06 in Berlin|08 2021 2022|10.30-11.30
    call 10.30-11.30|call 2021-2022 lost|2147483647|4294967295|Views: 2345678901|2345678901 people
    ISBN 3598215088|500 600 2023|100-200-3000|Call 1000000 people|population 7900000000
    612 345 678|501 234 567|call 1-800-799-SAFE|2010-2011 2012-2013|4000 3000 2000 1000|10²³ m²"""


@pytest.mark.parametrize("text", [text.strip() for text in PLAIN.replace("\n", "|").split("|")])
def test_mask_pii_leaves_amounts_dates_and_words(text: str) -> None:
    assert mask_pii(text) == text


@pytest.mark.parametrize("text", MASKED)
def test_mask_pii_replaces(text: str) -> None:
    assert mask_pii(text) == MASKED[text]


@pytest.mark.parametrize(
    "text",
    [
        "Meet @jane and @joe at 10:30",
        "H.R. 1234 passed 220-213 on 12/03/2019",
        "from 10:30:45 to 11:00",
        "a 1,234,567,890 dollar bill, $2,000,000,000",
        "2019-2020 budget is $4321098765",
        "version 1.2.3 of 2021.04.05",
        "#Covid19Vaccine2021AndBeyondForEveryoneInOhio",
        "follow @user@server.social",
        "status 1520113840917381121",
        "password reset is easy",
        "the years 1991 1992 1993 1994",
        "999.999.999.999 is no address",
        "order 4111 1111 1111 1112",
        "hahahahahahahahahahahahahahahahahahahaha",
        "10 9 8 7 6 5 4 3 2 1",
        "born 04-07-1776 in a house",
        "built on 01.09.1815 by hand",
        "text at 10.30 11.30 please",
        "ligue 1 10 20 30 40 50",
        "read it at nytimes dot com",
        "Token: $BTC2024 to the moon",
        "Bearer iPhone15Pro",
        "::",
        "",
    ],
)
def test_mask_pii_leaves(text: str) -> None:
    assert mask_pii(text) == text


PIECES = [
    "a",
    "1",
    "a1",
    "1 ",
    "1.",
    "a.",
    "a@",
    "+1 ",
    "A1B2 ",
    "f:",
    "0-",
    "(at)",
    "secret=",
    "@",
]
PIECES += ["+1", "06 ", "0.0", "００", "a at a dot ", "pw is ", "tel 1", "1-", "aa11", "é.", "📞1 "]


@pytest.mark.parametrize("piece", PIECES)
def test_mask_pii_takes_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    mask_pii(text)
    assert time.process_time() - start < 2
