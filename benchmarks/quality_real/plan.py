"""What is trained, in which order: from what decides to what is nice to know. Trains nothing.

A step is a generator: it asks for groups of runs and reads their rows before it asks for more. So
the walk over the rates goes on only in the direction that pays, and everything that was trained
before is passed over.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Protocol

Words = tuple[str, ...]
Row = dict[str, Any]

LORA = (
    "recipe=tweets", "recipe.adapter=lora", "recipe.lora_rank=8", "recipe.lora_alpha=16",
    "recipe.dropout=0", "recipe.epochs=2", "recipe.global_batch_size=1", "recipe.stop=never",
)  # fmt: skip
"""Where the choice begins. Every value that a step changes is given once more, behind these."""
LORA_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
ALL_RATES = (3e-5, 1.372e-4, 4e-4, 1.2e-3)
SHORT = "LoRA 8, blocks of 128"
"""What `short` is called in rows, tables and the plot of ranks."""
RANKS = (4, 16)
TINY_POSTS = 1500
MANY_POSTS = 500
COPIES = (1, 4, 16)
"""How often a canary is planted."""
CANARY_POSTS = 128
"""Room for four forms of each."""


@dataclass(frozen=True)
class Run:
    """One training of one account's newest posts."""

    step: str
    setting: str
    words: Words
    """Overrides, as a user would type them."""
    account: str
    num_train: int
    num_heldout: int
    """The newest posts; those before them are trained on, and still older ones nobody sees."""
    seed: int = 0
    samples: int = 0
    """Of each of the five prompts."""
    base: str = "base"
    """`base`, `tiny`, or which crowd: the base after other people's posts."""
    has_canaries: bool = False
    smoothing: float = 0.0
    """Of each label towards the person's token statistics; of adapters, one account at a time."""


@dataclass(frozen=True)
class Design:
    """On whom, and how much."""

    base: Words = ("model=smollm2-135m",)
    choice: tuple[str, ...] = ("MedvedevRussiaE", "QueenNoor", "PaulKagame", "RepKevinHern")
    """They decide every value, and are not tested on."""
    test: tuple[str, ...] = (
        "TheOnion", "NASA", "JDMahama", "realDonaldTrump", "David_Cameron", "RepDonBeyer",
        "fhollande", "PEPE_LOBO",
    )  # fmt: skip
    """They decide nothing. 546 to 3,192 kept posts; one writes French, one Spanish."""
    crowd: tuple[str, ...] = (
        "AV_Abhisit", "BennieGThompson", "big_ben_clock", "CarbajalSalud", "CFKArgentina",
        "ChuckGrassley", "CoryBooker", "desdelamoncloa", "dilmabr", "FelipeCalderon",
        "hatoyamayukio", "HHShkMohd", "ivojosipovic", "JoshGottheimer", "kaikahele",
        "LisaForCongress", "MaElviraSalazar", "MaxineWaters", "MedvedevRussia",
        "MedvedevRussiaE", "MichelleSteelCA", "MikeforWI", "MustafaAG", "noynoyaquino",
        "Number10gov", "Oreo", "PaulKagame", "PMOIndia", "QueenNoor", "RepAdrianSmith",
        "RepDLesko", "RepEdCase", "RepJasonCrow", "RepKevinHern", "RepKimSchrier",
        "RepLucyMcBath", "RepMcKinley", "RepRickCrawford", "RepVeasey", "RonnyJacksonTX",
        "RT_Erdogan", "SenatorRounds", "SenGillibrand", "SenShelby", "SenSherrodBrown",
        "SenTinaSmith", "SenToomey", "SenWhitehouse", "SteveScalise", "TomOHalleran",
        "USRepLong", "WarrenDavidson",
    )  # fmt: skip
    """All others who kept 60 posts, for the warm start; eleven write no English, three Spanish."""
    languages: tuple[str, ...] = ("AV_Abhisit", "hatoyamayukio", "MedvedevRussia", "HHShkMohd")
    """Thai, Japanese, Russian, Arabic: no account at hand writes Greek or Hebrew."""
    canary: str = "RepLucyMcBath"
    tiny: str = "SenWhitehouse"
    num_choice: int = 96
    num_test: tuple[int, ...] = (96, 96, 64, 96, 64, 64, 96, 48)
    """Training posts of each test account: of unlike size, as the accounts are."""
    num_heldout: int = 32
    num_crowd: int = 40
    """Posts of each of the crowd."""
    samples: int = 8
    num_seeds: int = 3

    @property
    def crowd_name(self) -> str:
        """What the rows call the crowd."""
        return f"crowd of {len(self.crowd)} people, {self.num_crowd} posts each"


SMALL = Design(
    num_choice=48, num_test=(48, 48, 32, 48, 32, 32, 48, 24), num_heldout=16, num_crowd=12
)
"""A first look, a third of the work. Its rows lie apart."""


def first_accounts(design: Design, num: int) -> Design:
    """Return a design with the first accounts of those that choose and those that test."""
    return replace(
        design,
        choice=design.choice[:num],
        test=design.test[:num],
        num_test=design.num_test[:num],
    )


class Found(Protocol):
    """The rows so far."""

    def of(self, runs: Sequence[Run]) -> list[Row]:
        """Return the rows of runs that were done, in their order."""


Step = Generator[list[Run], None, None]


def rate_words(rate: float, words: Words) -> Words:
    """Return a recipe at another rate."""
    return (*words, f"recipe.lr={rate:g}")


def short(rate: float) -> Words:
    """Return adapters at a rate, in half as long blocks: twice as many steps for their tokens."""
    return (*rate_words(rate, LORA), "recipe.block_size=128")


def on_choice(design: Design, step: str, setting: str, words: Words) -> list[Run]:
    """Return the runs of a setting on the accounts that choose."""
    return [
        Run(step, setting, words, account, design.num_choice, design.num_heldout)
        for account in design.choice
    ]


def on_test(design: Design, step: str, setting: str, words: Words, **more: Any) -> list[Run]:
    """Return the runs of a setting on the accounts that test."""
    return [
        replace(Run(step, setting, words, account, num, design.num_heldout), **more)
        for account, num in zip(design.test, design.num_test, strict=True)
    ]


def mean_bits(rows: Sequence[Row]) -> float:
    """Return the held-out bits per byte of the kept weights, mean over rows."""
    return fmean(row["figures"]["bits"] for row in rows)


def walk(
    found: Found, grid: Sequence[float], start: int, runs_at: Callable[[float], list[Run]]
) -> Generator[list[Run], None, float]:
    """Ask for the values of a grid from `start` on, first upwards, as long as it gets better.

    Returns:
        The best value.
    """

    def bits(index: int) -> Generator[list[Run], None, float]:
        runs = runs_at(grid[index])
        yield runs
        return mean_bits(found.of(runs))

    best, lowest = start, (yield from bits(start))
    for direction in (1, -1):
        at = start + direction
        while 0 <= at < len(grid):
            here = yield from bits(at)
            if here >= lowest:
                break
            best, lowest, at = at, here, at + direction
        if best != start:
            break
    return grid[best]


def best_lora_rate(found: Found, design: Design) -> Generator[list[Run], None, float]:
    """Return the best rate of LoRA of rank 8, over two decades."""

    def at(rate: float) -> list[Run]:
        return on_choice(design, "rates", f"LoRA 8, lr {rate:g}", rate_words(rate, LORA))

    return (yield from walk(found, LORA_RATES, 2, at))


def step_rates(found: Found, design: Design) -> Step:
    """LoRA of rank 8, rates over two decades."""
    yield from best_lora_rate(found, design)


def step_all_weights(found: Found, design: Design) -> Step:
    """All weights: the default recipe at three rates or four, and the original."""
    yield on_choice(design, "all", "huggingtweets", ("recipe=huggingtweets",))

    def at(rate: float) -> list[Run]:
        words = rate_words(rate, ("recipe=tweets", "recipe.global_batch_size=4"))
        return on_choice(design, "all", f"all weights, lr {rate:g}", words)

    yield from walk(found, ALL_RATES, 1, at)


def step_small_batch(found: Found, design: Design) -> Step:
    """All weights with one block per step, as LoRA has it, or two: more and smaller steps."""
    for blocks in (1, 2):
        words = ("recipe=tweets", f"recipe.global_batch_size={blocks}")
        yield on_choice(design, "small batch", f"all weights, blocks per step: {blocks}", words)


def step_epochs(found: Found, design: Design) -> Step:
    """The best rate with more epochs, and twice that rate; the curves tell what each brings."""
    rate = yield from best_lora_rate(found, design)
    for epochs in (6, 4):
        words = (*rate_words(rate, LORA), f"recipe.epochs={epochs}")
        yield on_choice(design, "epochs", f"LoRA 8, {epochs} epochs", words)
    words = (*rate_words(2 * rate, LORA), "recipe.epochs=4")
    yield on_choice(design, "epochs", f"LoRA 8, 4 epochs, lr {2 * rate:g}", words)


def step_blocks(found: Found, design: Design) -> Step:
    """Half as long blocks at the best rate, and twice that rate."""
    rate = yield from best_lora_rate(found, design)
    longer = ("recipe.warmup_frac=0.2",)
    for name, more in {
        "": (),
        ", 3 epochs": ("recipe.epochs=3",),
        f", lr {2 * rate:g}, warm-up 0.2": (f"recipe.lr={2 * rate:g}", *longer),
    }.items():
        yield on_choice(design, "blocks", f"{SHORT}{name}", (*short(rate), *more))
    words = (*rate_words(2 * rate, LORA), *longer)
    yield on_choice(design, "blocks", f"LoRA 8, lr {2 * rate:g}, warm-up 0.2", words)


def step_ranks(found: Found, design: Design) -> Step:
    """Rank 4 and 16, alpha twice the rank."""
    rate = yield from best_lora_rate(found, design)
    for rank in RANKS:
        words = (*short(rate), f"recipe.lora_rank={rank}", f"recipe.lora_alpha={2 * rank}")
        yield on_choice(design, "ranks", f"LoRA {rank}, blocks of 128", words)


def step_details(found: Found, design: Design) -> Step:
    """What is left: dropout, joined posts, smoothed labels, the recipe of all weights."""
    rate = yield from best_lora_rate(found, design)
    for name, more in {
        "dropout 0.1": ("recipe.dropout=0.1",),
        "joined": ("recipe.isolate_documents=false",),
    }.items():
        yield on_choice(design, "details", f"{SHORT}, {name}", (*short(rate), *more))
    for run in on_choice(design, "details", f"{SHORT}, labels smoothed by 0.1", short(rate)):
        yield [replace(run, smoothing=0.1)]
    as_all = ("recipe=tweets", "recipe.adapter=lora")
    yield on_choice(design, "details", "recipe=tweets with LoRA 8", as_all)


def step_many_posts(found: Found, design: Design) -> Step:
    """Five times as many posts of one account that chooses: do rates and epochs still hold?"""
    rate = yield from best_lora_rate(found, design)
    for name, words in {
        "LoRA 8, 2 epochs": rate_words(rate, LORA),
        "LoRA 8, 4 epochs": (*rate_words(rate, LORA), "recipe.epochs=4"),
        "LoRA 8, 2 epochs, blocks of 128": short(rate),
        "all weights, lr 0.0004": ("recipe=tweets", "recipe.lr=0.0004"),
        "all weights": ("recipe=tweets",),
        "all weights, 1 block, 2 epochs": (
            "recipe=tweets", "recipe.global_batch_size=1", "recipe.epochs=2",
        ),
        "huggingtweets": ("recipe=huggingtweets",),
    }.items():  # fmt: skip
        yield [Run("many posts", name, words, design.choice[0], MANY_POSTS, 2 * design.num_heldout)]


TESTED: dict[str, Words] = {
    "huggingtweets": ("recipe=huggingtweets", "sampling=huggingtweets"),
    "lora": ("recipe=lora",),
    "tweets": ("recipe=tweets",),
}


def step_test(found: Found, design: Design) -> Step:
    """The three recipes on accounts that chose nothing; ours first."""
    for name in ("lora", "huggingtweets", "tweets"):
        yield on_test(design, "test", name, TESTED[name], samples=design.samples)


def step_seeds(found: Found, design: Design) -> Step:
    """The same with other seeds, for what decides."""
    for seed in range(1, design.num_seeds):
        for name in ("lora", "huggingtweets"):
            yield on_test(design, "test", name, TESTED[name], seed=seed)


def step_posts(found: Found, design: Design) -> Step:
    """Few posts, from the base and from a crowd: first the size that takes least.

    500 are learnt by two accounts and 1,500 by one, of short posts: they take as long as all.
    """
    for num, accounts in ((50, 8), (150, 8), (500, 2), (1500, 1)):
        for name, base in {"base": "base", "crowd": design.crowd_name}.items():
            setting, more = f"{num} posts, {name}", {"num_train": num, "base": base}
            yield on_test(design, "posts", setting, ("recipe=lora",), **more)[:accounts]


def step_canaries(found: Found, design: Design) -> Step:
    """Secrets in a person's posts, with and without masking; then more epochs."""
    for name, words in {
        "masked": ("recipe=lora",),
        "not masked": ("recipe=lora", "cleaning.mask_pii=false"),
        "not masked, 6 epochs": ("recipe=lora", "cleaning.mask_pii=false", "recipe.epochs=6",
                                 "recipe.stop=never", "recipe.keep=last"),
        "not masked, tweets": ("recipe=tweets", "cleaning.mask_pii=false"),
    }.items():  # fmt: skip
        yield [
            Run("canaries", name, words, design.canary, CANARY_POSTS, design.num_heldout,
                has_canaries=True)
        ]  # fmt: skip


def step_languages(found: Found, design: Design) -> Step:
    """Scripts that the base hardly knows."""
    yield [
        Run("languages", "lora", ("recipe=lora",), account, 64, 16, samples=1)
        for account in design.languages
    ]


def step_tiny(found: Found, design: Design) -> Step:
    """The tiny base, on a real account: which rate and how many epochs."""
    for epochs, rate in ((10, 2e-3), (10, 5e-3), (30, 2e-3)):
        words = ("recipe=tweets", "recipe.dropout=0",
                 f"recipe.lr={rate:g}", f"recipe.epochs={epochs}")  # fmt: skip
        name = f"tiny, {epochs} epochs, lr {rate:g}"
        yield [Run("tiny", name, words, design.tiny, TINY_POSTS, 150, samples=2, base="tiny")]


STEPS: dict[str, Callable[[Found, Design], Step]] = {
    "rates": step_rates,
    "all": step_all_weights,
    "epochs": step_epochs,
    "blocks": step_blocks,
    "many posts": step_many_posts,
    "test": step_test,
    "canaries": step_canaries,
    "posts": step_posts,
    "tiny": step_tiny,
    "languages": step_languages,
    "ranks": step_ranks,
    "small batch": step_small_batch,
    "details": step_details,
    "seeds": step_seeds,
}
"""In the order in which they are done."""


def groups(found: Found, design: Design, steps: Sequence[str]) -> Iterator[list[Run]]:
    """Yield the groups of some steps; whoever takes one adds its rows before asking for more."""
    for step in steps:
        yield from STEPS[step](found, design)
