import time

import pytest

from huggingtweets.posts.masking import mask_pii

MASKED = {
    "mail jane.doe+x@example.co.uk today": "mail <email> today",
    "jane (at) example (dot) com": "<email>",
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
        "::",
        "",
    ],
)
def test_mask_pii_leaves(text: str) -> None:
    assert mask_pii(text) == text


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "a1", "1 ", "1.", "a.", "a@", "+1 ", "A1B2 ", "f:", "0-", "(at)", "secret=", "@"],
)
def test_mask_pii_takes_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    mask_pii(text)
    assert time.process_time() - start < 2
